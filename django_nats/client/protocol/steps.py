"""What an operation may ask of its driver.

An operation is a generator of steps: it yields one of these objects, receives the answer (or has
the failure thrown in), and returns its result. It does no I/O and knows no event loop, so one
implementation serves threads and event loops alike. The two drivers are in client/drivers.py.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar, overload

from ...exceptions import NatsError, OutcomeUnknown
from .runs import RunReader
from .wire import Reply

T = TypeVar("T")

Steps: TypeAlias = Generator[Any, Any, T]


class Lane:
    """One direction (reads or writes) of one stream: requests that time out together.

    ``fault`` is an error message while the lane's circuit is open, that is while the lane is
    known not to answer, and otherwise None. ``probe`` is the request that the session repeats in
    the background until it is answered; a lane without one never has an open circuit.
    """

    __slots__ = ("fault", "name", "probe", "timeout")

    def __init__(self, name: str, timeout: float) -> None:
        """Make a lane with a closed circuit. ``timeout`` is in seconds."""
        self.name = name
        self.timeout = timeout
        """Seconds to wait for the answer to a request of this lane."""
        self.fault: str | None = None
        self.probe: Request | None = None

    def __repr__(self) -> str:
        """Show the name, and whether the circuit is open."""
        return f"<Lane {self.name}{' down' if self.fault else ''}>"


class Follow(NamedTuple):
    """A subscription that begins before a request is answered, and lasts as long as the connection.

    ``heard`` is called at each message, and ``refused`` if the server refuses the subscription: on
    any thread, under the connection's lock.
    """

    subject: str
    heard: Callable[[Reply], None]
    refused: Callable[[NatsError], None]


class Request:
    """One message to send, which the server answers.

    A request that is yielded alone is answered by its Reply. Requests that are yielded in a list
    all leave in one write, and are answered by a list with a Reply or a NatsError for each.

    With ``gather``, a request is answered by the list of its replies, up to and including the
    first that carries a status. A ``reader`` takes those that it can read many at a time; they are
    not in the list. With ``inbox`` as well, the replies come in on a subscription of
    their own, since a pull consumer keeps the stored message's subject; the list then ends after
    ``gather`` replies at the latest. With ``follow``, the connection subscribes to a subject first,
    unless it has.
    """

    __slots__ = ("follow", "gather", "header", "inbox", "lane", "payload", "reader", "subject")

    def __init__(
        self,
        lane: Lane,
        subject: str,
        payload: bytes = b"",
        header: bytes = b"",
        *,
        gather: int = 0,
        inbox: bool = False,
        reader: RunReader | None = None,
        follow: Follow | None = None,
    ) -> None:
        """Make a request. Raise UnicodeEncodeError for a subject that is not ASCII."""
        self.lane = lane
        self.subject = subject.encode("ascii")
        self.payload = payload
        self.header = header
        self.gather = gather
        self.inbox = inbox
        self.reader = reader
        self.follow = follow

    def __repr__(self) -> str:
        """Show the subject and the size, but not the payload, which is a user's."""
        return f"<Request {self.subject.decode()} {len(self.payload)} B>"


class Publications(Sequence[Request]):
    """Many messages to publish in one stream, which all leave in one write.

    They are answered by a list, as requests in a list are. The answer to a message that was stored
    is its sequence, or a Reply if the server says more than that.

    Each message is a request, but that is made only when it is asked for, which few are.
    """

    __slots__ = ("headers", "lane", "max_size", "payloads", "stream", "subjects")

    def __init__(
        self,
        lane: Lane,
        stream: bytes,
        subjects: list[bytes],
        payloads: list[bytes],
        headers: list[bytes],
    ) -> None:
        """Take the parts of one or more messages in lists. Each message has a header."""
        self.lane = lane
        self.stream = stream
        self.subjects = subjects
        self.payloads = payloads
        self.headers = headers
        self.max_size = max(map(len, headers)) + max(map(len, payloads))
        """The number of bytes that no message exceeds, with its header."""

    def __len__(self) -> int:
        return len(self.subjects)

    @overload
    def __getitem__(self, index: int) -> Request: ...

    @overload
    def __getitem__(self, index: slice) -> Publications: ...

    def __getitem__(self, index: int | slice) -> Request | Publications:
        subjects, payloads, headers = self.subjects, self.payloads, self.headers
        if isinstance(index, slice):
            parts = subjects[index], payloads[index], headers[index]
            return Publications(self.lane, self.stream, *parts)
        return Request(self.lane, subjects[index].decode(), payloads[index], headers[index])


class Pause(NamedTuple):
    """Wait for a number of seconds."""

    seconds: float


class Call(NamedTuple):
    """Call a function. The async driver awaits the result if it is awaitable.

    A function that ``blocks`` is called by the async driver in a thread, as Django's ORM is.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    blocks: bool = False


class Wait(NamedTuple):
    """Wait until a callback is called.

    The driver passes the callback to ``register``. Any thread may call it, at once and more than
    once.
    """

    register: Callable[[Callable[[], object]], object]


class Within(NamedTuple):
    """Perform another effect, but wait for it only until a moment of the monotonic clock.

    Raise Expired if that has passed. What was sent by then may be applied all the same. A Wait and
    a Call are not cut short.
    """

    effect: Any
    deadline: float


class Expired(Exception):
    """The time of Within has passed."""


@dataclass(slots=True)
class Item(Generic[T]):
    """One item of an iteration."""

    value: T


ItemSteps: TypeAlias = Generator["Item[T] | Any", Any, None]
"""Steps that also yield items, and return None."""


def next_item(steps: ItemSteps[T]) -> Steps[Item[T] | None]:
    """Continue an iteration up to its next item. Return the item, or None at the end."""
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


def within(deadline: float, steps: Steps[T]) -> Steps[T]:
    """Run steps until they end, or until a moment of the monotonic clock.

    Raise OutcomeUnknown if the time has passed, and close the steps as a cancellation does.
    """
    advance: Callable[[Any], Any] = steps.send
    answer: Any = None
    while True:
        try:
            effect = advance(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        try:
            answer = yield Within(effect, deadline)
        except (GeneratorExit, Expired) as error:
            steps.close()
            if isinstance(error, GeneratorExit):
                raise
            raise OutcomeUnknown("The server did not answer in the call's time") from None
        except BaseException as error:
            advance, answer = steps.throw, error
        else:
            advance = steps.send


Answer: TypeAlias = "Reply | list[Reply] | int | NatsError"
"""The answer to one request: an int only to one of Publications."""
