"""The bytes that arrive on a connection: parsed, under the lock, exactly once.

The reading thread, the loop's or a caller's, passes what it has read to Incoming.receive(). A
signal's handler may raise in the middle of that, on a caller's thread. What has been parsed by
then is done. For the rest, receive() is called once more with the same piece, by that caller or
by the next reader, and continues where it stopped. If that is impossible, can_continue() says so,
and the connection is given up.
"""

from __future__ import annotations

from collections.abc import Callable

from ...realtime import monotonic
from ..protocol.parser import Parser
from .pending import Outstanding

HEADER_ROOM_BYTES = 64 * 1024
"""How much larger than max_payload a message from the server may be.

The server adds headers to a stored message, or sends it within a JSON document.
"""


class Incoming:
    """Parses what arrives on one connection, and passes on each message and each other line."""

    def __init__(
        self,
        outstanding: Outstanding,
        on_line: Callable[[bytes], None],
        on_received: Callable[[], None],
    ) -> None:
        """Make it for a connection that is not open yet.

        Messages go to ``outstanding``, and other lines to ``on_line``. ``on_received`` is called
        after each piece, without the lock.
        """
        self._outstanding = outstanding
        self._on_received = on_received
        self._parser = Parser(outstanding.take, on_line, outstanding.refuse_large, 0)
        self._piece: list[bytes] = []
        """The last piece, in the list in which it came."""
        self._parsed = True
        """Whether that piece has been parsed to its end."""

    def limit(self, max_payload: int) -> None:
        """Skip larger messages than the server can have stored, by its own max_payload in bytes."""
        # The leader sends a stored message in base64, which makes four bytes of three.
        max_bytes = max_payload * 4 // 3 + HEADER_ROOM_BYTES
        self._parser.max_bytes = self._outstanding.max_reply_bytes = max_bytes

    def receive(self, piece: list[bytes]) -> None:
        """Parse a piece, which is a list with its bytes. Raise ProtocolError.

        Given the same list again, continue where a signal's handler has interrupted.
        """
        with self._outstanding.lock:
            if self._piece is not piece:
                self._outstanding.received_at = monotonic()
                self._parsed = False
                self._piece = piece
                self._parser.feed(piece[0])
                self._parsed = True
            elif not self._parsed:
                self._parser.feed(b"")
                self._parsed = True
        self._on_received()

    def can_continue(self, piece: list[bytes]) -> bool:
        """Return True if receive() can be called with a piece once more after an interruption.

        The message that was being handled is then counted as lost.
        """
        if self._piece is not piece or self._parsed:
            return True
        interrupted = self._parser.interrupted
        if interrupted is None:
            return False
        self._outstanding.interrupt(*interrupted)
        return True
