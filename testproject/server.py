"""What serves the site."""

from __future__ import annotations

from types import FrameType

import uvicorn

from testproject.asgi import application
from testproject.magazine import streams


class Server(uvicorn.Server):
    """Uvicorn, which waits at its end for all responses, and so for streams that go on."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            uvicorn.Config(application, host, port, lifespan="off", log_level="warning")
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        streams.close()
        super().handle_exit(sig, frame)
