"""One caller's wait for the answers to its requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..exceptions import NatsError
from .steps import Answer, Request
from .wire import Reply, status

if TYPE_CHECKING:
    from .connection import Connection
    from .shared import SharedSocket


class Waiter:
    """Filled by whoever reads the answers, who calls ``wake``, once, when every one is in."""

    __slots__ = (
        "abandoned",
        "answers",
        "at_rest",
        "blocking",
        "connection",
        "deadline",
        "end",
        "keys",
        "left",
        "news",
        "requests",
        "sent",
        "shared",
        "thread",
        "timeout",
        "wake",
    )

    def __init__(
        self, requests: Sequence[Request], wake: Callable[[], object], *, blocking: bool = False
    ) -> None:
        self.requests = requests
        self.blocking = blocking
        """Whether the caller's thread has nothing to do but wait."""
        self.wake = wake
        self.answers: list[Answer | None] = [None] * len(requests)
        self.left = len(requests)
        self.news: str | None = None
        """What the caller is to log."""
        self.timeout = requests[0].lane.timeout
        self.abandoned = False
        self.connection: Connection | None = None
        self.thread = 0
        self.at_rest = False
        self.shared: SharedSocket | None = None
        """What the right to read is to be given back to, wherever its caller is interrupted."""
        self.keys: list[bytes] = []
        """What its replies go by."""
        self.sent = 0.0
        self.deadline = 0.0
        self.end = 0
        """Where in all that the connection has written its last byte is."""

    @property
    def first_open(self) -> Request:
        """The first request that has no answer yet, or not all of it."""
        for request, answer in zip(self.requests, self.answers, strict=True):
            if not _is_whole(request, answer):
                return request
        raise LookupError("every request is answered")

    def is_answered(self) -> bool:
        return not self.left

    def answer(self, index: int, answer: Answer) -> None:
        self.answers[index] = answer
        if self.left == 1:
            self.wake()
        # Only now: were waking interrupted by a signal, fail() would have to do it.
        self.left -= 1

    def gather(self, index: int, reply: Reply, most: int) -> list[Reply] | None:
        """Add one of several replies; all of them when it was the last."""
        gathered = self.answers[index]
        if type(gathered) is not list:
            gathered = self.answers[index] = []
        gathered.append(reply)
        return gathered if len(gathered) >= most or status(reply) else None

    def fail(self, error: NatsError) -> None:
        """Answer everything still open with an error."""
        if not self.left:
            return
        for index, (request, answer) in enumerate(zip(self.requests, self.answers, strict=True)):
            if not _is_whole(request, answer):
                self.answers[index] = error
        self.left = 0
        self.wake()


def _is_whole(request: Request, answer: Answer | None) -> bool:
    if isinstance(answer, list):
        return len(answer) >= request.gather or bool(status(answer[-1]))
    return answer is not None
