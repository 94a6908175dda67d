"""What an operation may ask of its driver.

An operation is a generator: it yields one of these, receives the answer (or has the failure
thrown in), and returns its result. It does no I/O and knows no loop, so one implementation
serves threads and event loops alike; the two drivers are in bridge.py.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

from ..exceptions import NatsError
from .wire import Reply

T = TypeVar("T")

Steps: TypeAlias = Generator[Any, Any, T]


class Lane:
    """One direction (reads or writes) of one stream: what times out together.

    ``fault`` is set while the lane is known not to answer; ``probe`` is the request the
    connection repeats in the background until somebody answers again.
    """

    __slots__ = ("fault", "name", "probe", "timeout")

    def __init__(self, name: str, timeout: float) -> None:
        self.name = name
        self.timeout = timeout
        """Seconds a request of this lane may go without an answer."""
        self.fault: str | None = None
        self.probe: Request | None = None

    def __repr__(self) -> str:
        return f"<Lane {self.name}{' down' if self.fault else ''}>"


class Request:
    """One message to send, and what answers it.

    Yielded alone, the answer is its Reply. Yielded in a list, all go out in one write and the
    answer is a list with a Reply, or the NatsError, for each. With ``gather`` the answer to a
    request is the list of its replies, up to and with the first that carries a status; with
    ``inbox`` too, the replies come on a subscription of their own (a pull consumer keeps the
    stored message's subject), and end at the latest after ``gather`` of them.
    """

    __slots__ = ("gather", "header", "inbox", "lane", "payload", "subject")

    def __init__(
        self,
        lane: Lane,
        subject: str,
        payload: bytes = b"",
        header: bytes = b"",
        *,
        gather: int = 0,
        inbox: bool = False,
    ) -> None:
        self.lane = lane
        self.subject = subject.encode("ascii")
        self.payload = payload
        self.header = header
        self.gather = gather
        self.inbox = inbox

    def __repr__(self) -> str:
        return f"<Request {self.subject.decode()} {len(self.payload)} B>"


class Pause(NamedTuple):
    """Wait for so many seconds."""

    seconds: float


class Call(NamedTuple):
    """Call a user's function; the async driver awaits what it returns if that is awaitable."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


class Wait(NamedTuple):
    """Wait until a function is called, which another is told of: from any thread, maybe at once,
    maybe more than once."""

    tell: Callable[[Callable[[], object]], object]


class Item(NamedTuple):
    """One item of an iteration."""

    value: Any


def next_item(steps: Steps[None]) -> Steps[Item | None]:
    """Go on with an iteration up to its next item, which is returned; None at its end."""
    advance: Callable[[Any], Any] = steps.send
    answer: Any = None
    while True:
        try:
            effect = advance(answer)
        except StopIteration:
            return None
        if type(effect) is Item:
            return effect
        try:
            answer = yield effect
        except GeneratorExit:
            steps.close()
            raise
        except BaseException as error:
            advance, answer = steps.throw, error
        else:
            advance = steps.send


Answer: TypeAlias = "Reply | list[Reply] | NatsError"
