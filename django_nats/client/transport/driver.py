"""nats-py's client, made to log in as the settings ask, and to say why it could not.

It depends on private names of nats-py, which nats_py.py lists.
"""

from __future__ import annotations

from typing import Any

from nats.aio.client import Client

from ...exceptions import NotSent, UnexpectedReply
from ..protocol import documents
from .error_lines import LastWords


class Driver(Client):
    """A client that is not connected. Every method runs on the loop on which it was made."""

    # nats-py's. It is None before log_in() has connected, and never after.
    _transport: Any

    def __init__(self) -> None:
        """Make a client that log_in() connects."""
        super().__init__()
        self._needs_tls = self._logging_in = False
        self._last_words: LastWords | None = None

    async def open(self, server: str, options: dict[str, Any], inbox_prefix: str) -> None:
        """Connect to one server, with one attempt. Raise what nats-py or the socket raised."""
        raise NotImplementedError

    async def log_in(self, server: str, **options: Any) -> None:
        """Connect to one server, with one attempt, and the options of nats-py's connect()."""
        self._needs_tls = "tls" in options or server.startswith("tls:")
        self._logging_in = True
        try:
            await self.connect(servers=[server], allow_reconnect=False, **options)
        except OSError as error:
            if refusal := self._last_words and self._last_words.refusal(error):
                raise refusal from error
            raise
        except UnicodeDecodeError as error:
            raise UnexpectedReply("The server refuses with an error that is not UTF-8") from error
        except AttributeError as error:
            if isinstance(self._server_info, dict):
                raise
            raise UnexpectedReply("The server's INFO is not an object") from error
        finally:
            self._logging_in = False
            if self._last_words is not None:
                self._last_words.close()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection:
            documents.require(info, "the server's INFO", documents.GREETING)
        if initial_connection and self._logging_in:
            self._last_words = LastWords(self._transport._io_reader, self._transport._io_writer)
        if self._needs_tls and initial_connection:
            # nats-py leaves the choice to the server, and would send credentials in the clear.
            if not (info.get("tls_required") or info.get("tls_available")):
                raise NotSent("the server offers no TLS, which the settings ask for")
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    def abort(self) -> None:
        """Close the socket at once."""
        # nats-py's close() would wait until the buffer is empty, even if the server does not read.
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    def descriptors(self) -> list[int]:
        """Return the file descriptors, which a forked child closes."""
        writer = getattr(self._transport, "_io_writer", None)
        sock = writer.get_extra_info("socket") if writer is not None else None
        return [] if sock is None else [int(sock.fileno())]
