"""One caller's wait for the answers to its requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ...exceptions import NatsError, UnexpectedReply
from ..protocol.steps import Answer, Request
from ..protocol.wire import Reply, status

SMALL_REPLY_BYTES = 32 * 1024
"""Size of a reply, headers included, up to which the number of replies alone bounds their memory.

It is more than a listed key needs: the key may be 8 KiB long, and three times that in its header.
"""


class Carrier(Protocol):
    """What a waiter's session needs of the connection that carries the requests."""

    def forget(self, waiter: Waiter) -> None:
        """Stop waiting for a waiter's replies."""


class ReadableSocket(Protocol):
    """What a waiter's session needs of the socket that the caller may be reading."""

    def end_reading(self, reader: Waiter) -> None:
        """Return the right to read, if the waiter has it."""


class Waiter:
    """The requests of one caller, and their answers.

    The thread that reads an answer stores it here. It calls ``wake``, once, when all answers are
    there.
    """

    __slots__ = (
        "abandoned",
        "answers",
        "at_rest",
        "blocking",
        "connection",
        "deadline",
        "end_offset",
        "gathered_bytes",
        "keys",
        "requests",
        "sent",
        "shared",
        "thread",
        "timeout",
        "unanswered",
        "wake",
        "warning",
    )

    def __init__(
        self, requests: Sequence[Request], wake: Callable[[], object], *, blocking: bool = False
    ) -> None:
        """Make a waiter for requests that have not been sent."""
        self.requests = requests
        self.blocking = blocking
        """Whether the caller's thread does nothing but wait, so that it may read for itself."""
        self.wake = wake
        self.answers: list[Answer | None] = [None] * len(requests)
        self.unanswered = len(requests)
        """Number of requests without an answer."""
        self.gathered_bytes: dict[int, int] = {}
        """Total size of the large replies to a request that gathers several, by its index."""
        self.warning: str | None = None
        """What the caller should log."""
        self.timeout = requests[0].lane.timeout
        """Seconds."""
        self.abandoned = False
        """Whether the caller has stopped waiting."""
        self.connection: Carrier | None = None
        """The connection on which the requests were sent; None before that."""
        self.thread = 0
        """Identity of the caller's thread, while that may read the socket."""
        self.at_rest = False
        """Whether the right to read can be taken away: see shared_socket.Reader."""
        self.shared: ReadableSocket | None = None
        """The socket to which the right to read must be returned if the caller is interrupted."""
        self.keys: list[bytes] = []
        """Keys of the requests in the connection's table of outstanding requests."""
        self.sent = 0.0
        """When the requests were sent, on the monotonic clock."""
        self.deadline = 0.0
        """When they time out, on the monotonic clock."""
        self.end_offset = 0
        """Position of their last byte in all that the connection has written."""

    @property
    def first_open(self) -> Request:
        """Return the first request whose answer is missing or incomplete."""
        for request, answer in zip(self.requests, self.answers, strict=True):
            if not _is_complete(request, answer):
                return request
        raise LookupError("every request is answered")

    def is_answered(self) -> bool:
        """Return True if every request has its answer."""
        return not self.unanswered

    def answer(self, index: int, answer: Answer) -> None:
        """Store the answer to a request. Wake the caller after the last one."""
        self.answers[index] = answer
        if self.unanswered == 1:
            self.wake()
        # Only now: if a signal's handler interrupted wake(), fail() has to wake the caller.
        self.unanswered -= 1

    def answer_many(self, index: int, answers: Sequence[int]) -> None:
        """Store the answers to requests that follow each other. Wake the caller after the last."""
        self.answers[index : index + len(answers)] = answers
        if self.unanswered == len(answers):
            self.wake()
        self.unanswered -= len(answers)  # only now, as in answer()

    def gather(
        self, index: int, reply: Reply, max_replies: int, max_large_bytes: int
    ) -> list[Reply] | NatsError | None:
        """Add one of several replies. Return all of them after the last, otherwise None.

        Replies of up to SMALL_REPLY_BYTES are bounded by their number, ``max_replies``. The
        larger ones may have as much as that many small ones, and ``max_large_bytes`` more, in
        all. Return an UnexpectedReply when they have more.
        """
        gathered = self.answers[index]
        if type(gathered) is not list:
            gathered = self.answers[index] = []
        gathered.append(reply)
        header = reply[0]
        size = len(header) + len(reply[1])
        if size > SMALL_REPLY_BYTES and not self._has_room(
            index, size, max_replies * SMALL_REPLY_BYTES + max_large_bytes
        ):
            return UnexpectedReply("The server answered one request with far too many bytes")
        # For most headers, the first byte alone shows that they have no status.
        is_last = len(gathered) >= max_replies - _read_at_once(self.requests[index]) or (
            header[8:9] == b" " and status(reply)
        )
        return gathered if is_last else None

    def _has_room(self, index: int, size: int, max_bytes: int) -> bool:
        self.gathered_bytes[index] = size = self.gathered_bytes.get(index, 0) + size
        return size <= max_bytes

    def fail(self, error: NatsError) -> None:
        """Answer every request that is still open with an error, and wake the caller."""
        if not self.unanswered:
            return
        for index, (request, answer) in enumerate(zip(self.requests, self.answers, strict=True)):
            if not _is_complete(request, answer):
                self.answers[index] = error
        self.unanswered = 0
        self.wake()


def _is_complete(request: Request, answer: Answer | None) -> bool:
    if isinstance(answer, list):
        most = request.gather - _read_at_once(request)
        return len(answer) >= most or bool(status(answer[-1]))
    return answer is not None


def _read_at_once(request: Request) -> int:
    """Return how many replies a reader has taken of those that end by their number."""
    return request.reader.count if request.inbox and request.reader is not None else 0
