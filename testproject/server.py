"""The server of the site."""

from __future__ import annotations

from types import FrameType

import uvicorn

from testproject.asgi import application
from testproject.magazine import streams


class Server(uvicorn.Server):
    """Uvicorn, except that it ends the event streams before it waits for all responses."""

    def __init__(self, host: str, port: int) -> None:
        """Prepare to serve the site on an address."""
        config = uvicorn.Config(
            application,
            host,
            port,
            lifespan="off",
            log_level="warning",
            proxy_headers=False,  # by which a client on this machine could choose its address
        )
        super().__init__(config)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End the event streams, and let Uvicorn end."""
        streams.close()
        super().handle_exit(sig, frame)
