"""nats-py's transport, for a connection that is open already: it notes how far the login has come.

What answers at an address may be no NATS server, or one that refuses the client before its login.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any
from urllib.parse import ParseResult

from nats.aio.transport import TcpTransport

from ...exceptions import NotSent
from ...printable import printable
from ..protocol import documents
from .progress import NO_TLS_FIRST, Stage, lost

_MAX_BYTES = 4096
_MAX_SHOWN = 60
"""How many characters of a foreign greeting an error shows."""
_INFO = b"INFO "
_CLOSED = "the server has closed the connection"


class OpenTransport(TcpTransport):
    """The transport of one connection, and of those that nats-py opens to reconnect."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str
    ) -> None:
        """Take the streams. ``address`` is shown in errors. Call end_login() in the end."""
        super().__init__()  # type: ignore[no-untyped-call]
        # The first ones are kept even after TLS has replaced them, as nats-py does.
        self._bare_io_reader = self._io_reader = reader
        self._bare_io_writer = self._io_writer = writer
        self.socket: Any = writer.get_extra_info("socket")
        """The socket. A TLS transport no longer has it once the connection is lost."""
        self._address = address
        self.stage = Stage.GREETING
        self.greeted = False
        """Whether the server has sent its INFO."""
        self.wants_certificate = False
        """Whether the server has said that it asks for a client's certificate."""
        self._last_words: LastWords | None = None

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """Open another connection in place of one that was lost."""
        await super().connect(uri, buffer_size, connect_timeout)
        writer: Any = self._io_writer
        self.socket = writer.get_extra_info("socket")

    async def connect_tls(
        self,
        uri: str | ParseResult,
        ssl_context: ssl.SSLContext,
        buffer_size: int,
        connect_timeout: int,
    ) -> None:
        """Begin TLS. Raise ConnectionAbortedError if the handshake takes too long."""
        self.stage = Stage.TLS
        await self._shake_hands(uri, ssl_context, connect_timeout)
        self.require_open()  # with TLS 1.3, a server refuses a certificate after the handshake
        if not self.greeted and _unread(self._bare_io_reader):
            # Its greeting came before the handshake, and it sends no other.
            raise NotSent(NO_TLS_FIRST)
        self.stage = Stage.LOGIN if self.greeted else Stage.GREETING

    async def _shake_hands(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, seconds: int
    ) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol: Any = asyncio.StreamReaderProtocol(reader)
        # nats-py leaves this out, and asyncio would log a warning when the connection ends. That
        # may be during the handshake, so these streams are made here.
        protocol._over_ssl = True
        transport = await loop.start_tls(
            self._bare_io_writer.transport,  # type: ignore[union-attr]
            protocol,
            ssl_context,
            server_hostname=uri if isinstance(uri, str) else uri.hostname,
            ssl_handshake_timeout=seconds,
        )
        if transport is None:  # the connection was lost right after the handshake
            raise ConnectionResetError(_CLOSED)
        self._io_reader = reader
        self._io_writer = asyncio.StreamWriter(transport, protocol, reader, loop)

    async def readline(self) -> bytes:
        """Return a line. Raise NotSent if the first one is not a NATS server's.

        Raise ConnectionResetError if there is no further one.
        """
        reader: Any = self._io_reader
        if self.greeted:
            if line := bytes(await reader.readline()):
                return line
            raise ConnectionResetError(_CLOSED)  # nats-py would go on
        try:
            line = bytes(await reader.readline())
        except ValueError as error:  # there was no end of a line
            raise NotSent(f"{self._address} does not greet as a NATS server does") from error
        if not line.startswith(_INFO):
            raise NotSent(self._describe(line))
        info = documents.read(line[len(_INFO) :], "the server's INFO", documents.GREETING)
        self.wants_certificate = bool(info.get("tls_verify"))
        self.greeted, self.stage = True, Stage.LOGIN
        self._last_words = LastWords(self.socket)
        return line

    def _describe(self, line: bytes) -> str:
        if not line:
            return str(lost(Stage.GREETING, self._address))
        shown = printable(line.rstrip()[:_MAX_SHOWN].decode("utf-8", "replace"))
        return (
            f'"{shown}" is the greeting of {self._address}: it is not the client port of a NATS '
            "server. Correct LOCATION"
        )

    def last_words(self) -> str:
        """Return with which error the server has refused the connection, or an empty string."""
        if self._last_words is None:
            return ""
        return self._last_words.read(self.unread)

    @property
    def unread(self) -> bytes:
        """What has arrived, and nobody has read."""
        return _unread(self._io_reader)

    @property
    def closed(self) -> bool:
        """Whether the connection is known to be lost. asyncio's transport is of no use then."""
        writer: Any = self._io_writer
        return writer.transport.is_closing() or writer.transport.get_protocol() is None

    def require_open(self) -> None:
        """Raise ConnectionResetError if the connection is known to be lost.

        Several events may have happened when the loop goes on: what arrived, and the end.
        """
        if self.closed:
            raise ConnectionResetError(_CLOSED)

    @property
    def has_tls(self) -> bool:
        """Whether TLS has begun."""
        return self._io_writer is not self._bare_io_writer

    @property
    def descriptors(self) -> list[int]:
        """Return the file descriptors. They are negative once closed."""
        own = [int(self.socket.fileno())]
        return own if self._last_words is None else [*own, self._last_words.descriptor]

    def end_login(self) -> None:
        """Release what only the login needs."""
        if self._last_words is not None:
            self._last_words.close()
            self._last_words = None


class LastWords:
    """What a server says that refuses a connection before the client has logged in.

    The server sends an error after its INFO, and closes. The login then meets a closed socket, and
    asyncio reports that in place of what had arrived before.
    """

    def __init__(self, sock: Any) -> None:
        """Take a connection's socket, which asyncio may close. Call close() in the end."""
        descriptor = sock.fileno()
        # It is negative if the connection has been lost before the INFO was read.
        self.descriptor = descriptor if descriptor < 0 else os.dup(descriptor)

    def read(self, unread: bytes) -> str:
        """Return the error that has arrived, or an empty string.

        ``unread`` is what asyncio has received, and nobody has read.
        """
        try:
            unread += os.read(self.descriptor, _MAX_BYTES)
        except OSError:
            pass  # nothing is there, or the connection was reset
        for line in unread[:_MAX_BYTES].split(b"\r\n"):
            if line.startswith(b"-ERR"):
                return printable(line[4:].strip(b" '").decode("utf-8", "replace"))
        return ""

    def close(self) -> None:
        """Close the descriptor."""
        if self.descriptor >= 0:
            os.close(self.descriptor)


def _unread(reader: Any) -> bytes:
    """Return what has arrived and has not been read."""
    return bytes(getattr(reader, "_buffer", b""))
