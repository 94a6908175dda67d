"""The two drivers and each kind of step, without a server."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from django_nats.client import drivers, process
from django_nats.client.protocol.steps import Call, Item, Lane, Pause, Request, Steps, Wait
from django_nats.client.protocol.wire import Reply
from django_nats.client.transport.loop import LoopThread
from django_nats.client.transport.session import Session
from django_nats.client.transport.waiter import Waiter
from django_nats.exceptions import NotSent, OutcomeUnknown

LANE = Lane("a lane", 1.0)

Drive = Callable[..., Any]


class Answering(Session):
    """A session that answers each request itself, with its payload in capitals."""

    def __init__(self) -> None:
        self.abandoned: list[Waiter] = []
        self.unanswered: list[Waiter] = []
        self.writes: list[int] = []

    def submit(self, waiter: Waiter) -> None:
        self.writes.append(len(waiter.requests))
        if waiter.requests[0].subject == b"refused":
            raise NotSent("the circuit is open")
        for index, request in enumerate(waiter.requests):
            if request.subject == b"mute":
                waiter.answer(index, OutcomeUnknown("no answer"))
            elif request.subject == b"never":
                self.unanswered.append(waiter)
            else:
                waiter.answer(index, Reply(b"", request.payload.upper()))

    def abandon(self, waiter: Waiter) -> None:
        self.abandoned.append(waiter)


def _sync(session: Session, steps: Steps[Any]) -> Any:
    return drivers.run(session, steps)


def _async(session: Session, steps: Steps[Any]) -> Any:
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(drivers.arun(session, steps))
    finally:
        loop.close()


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def drive(request: pytest.FixtureRequest) -> Drive:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def session() -> Answering:
    return Answering()


def ask(subject: str, payload: bytes = b"") -> Request:
    return Request(LANE, subject, payload)


def test_a_request_is_answered_by_its_reply(drive: Drive, session: Answering) -> None:
    def steps() -> Steps[bytes]:
        reply: Reply = yield ask("a", b"one")
        return reply.payload

    assert drive(session, steps()) == b"ONE"


def test_a_list_is_one_write_and_has_an_answer_for_each(drive: Drive, session: Answering) -> None:
    def steps() -> Steps[list[Any]]:
        return (yield [ask("a", b"one"), ask("mute"), ask("b", b"two")])

    first, second, third = drive(session, steps())
    assert (first.payload, third.payload) == (b"ONE", b"TWO")
    assert isinstance(second, OutcomeUnknown)
    assert session.writes == [3]


def test_an_empty_list_sends_nothing(drive: Drive, session: Answering) -> None:
    def steps() -> Steps[list[Any]]:
        return (yield [])

    assert drive(session, steps()) == []
    assert session.writes == []


@pytest.mark.parametrize(("subject", "error"), [("mute", OutcomeUnknown), ("refused", NotSent)])
def test_a_failure_is_thrown_into_the_operation(
    drive: Drive, session: Answering, subject: str, error: type[Exception]
) -> None:
    def steps(handled: bool) -> Steps[bytes]:
        try:
            yield ask(subject)
        except error:
            if not handled:
                raise
        reply: Reply = yield ask("a", b"instead")
        return reply.payload

    assert drive(session, steps(handled=True)) == b"INSTEAD"
    with pytest.raises(error):
        drive(session, steps(handled=False))


def test_a_function_that_blocks_is_called_outside_of_the_loop(
    drive: Drive, session: Answering
) -> None:
    def runs_in_a_loop() -> bool:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return False
        return True

    def steps(blocks: bool) -> Steps[bool]:
        return (yield Call(runs_in_a_loop, (), blocks))

    assert drive(session, steps(blocks=True)) is False
    assert drive(session, steps(blocks=False)) is (drive is _async)


def test_an_error_of_a_function_that_blocks_is_thrown_into_the_operation(
    drive: Drive, session: Answering
) -> None:
    def fail(text: str) -> None:
        raise ValueError(text)

    def steps() -> Steps[str]:
        try:
            yield Call(fail, ("refused",), blocks=True)
        except ValueError as error:
            return str(error)
        return ""

    assert drive(session, steps()) == "refused"


def test_a_pause_lasts(drive: Drive, session: Answering) -> None:
    def steps() -> Steps[None]:
        yield Pause(0.05)

    started = time.monotonic()
    drive(session, steps())
    assert time.monotonic() - started >= 0.05


def test_a_pause_outlasts_a_close_on_a_loop_with_a_clock_of_its_own(session: Answering) -> None:
    def steps() -> Steps[None]:
        yield Pause(0.2)

    async def pause() -> None:
        loop = asyncio.get_running_loop()
        loop.time = lambda: time.monotonic() + 1000  # type: ignore[method-assign]
        pausing = asyncio.ensure_future(drivers.arun(session, steps()))
        await asyncio.sleep(0)
        process.close()  # the background loop's timer ends with it
        await asyncio.wait_for(pausing, 60)

    asyncio.run(pause())


def test_the_callback_of_a_wait_may_be_called_more_than_once(
    drive: Drive, session: Answering
) -> None:
    wakes: list[Callable[[], object]] = []

    def tell(wake: Callable[[], object]) -> None:
        wakes.append(wake)
        wake()
        wake()

    def steps() -> Steps[str]:
        yield Wait(tell)
        wakes[0]()
        return "woken"

    assert drive(session, steps()) == "woken"
    wakes[0]()


class EndedThread(LoopThread):
    """A thread that has ended. ``last`` is called when a caller checks that it is alive."""

    def __init__(self, last: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._last = last

    @property
    def alive(self) -> bool:
        self._last()
        return False


def test_a_caller_does_not_wait_for_a_thread_that_has_ended(
    session: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asking() -> Steps[None]:
        yield ask("never")

    def waiting() -> Steps[None]:
        yield Wait(lambda wake: None)

    monkeypatch.setattr(drivers, "_ALIVE_CHECK_S", 0.01)
    monkeypatch.setattr(drivers, "thread", EndedThread())
    for steps in (asking, waiting):
        with pytest.raises(NotSent, match="The background loop has ended"):
            drivers.run(session, steps())
    assert session.abandoned == session.unanswered  # no other loop sends it


def test_an_answer_that_arrives_as_the_thread_ends_is_returned(
    session: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same happens in a child that a signal handler forks just after the check."""
    wakes: list[Callable[[], object]] = []

    def asking() -> Steps[bytes]:
        reply: Reply = yield ask("never", b"one")
        return reply.payload

    def waiting() -> Steps[bytes]:
        yield Wait(wakes.append)
        return b"woken"

    def last() -> None:
        for waiter in session.unanswered:
            waiter.answer(0, Reply(b"", b"answer"))
        for wake in wakes:
            wake()

    monkeypatch.setattr(drivers, "_ALIVE_CHECK_S", 0.01)
    monkeypatch.setattr(drivers, "thread", EndedThread(last))
    assert drivers.run(session, asking()) == b"answer"
    session.unanswered.clear()
    assert drivers.run(session, waiting()) == b"woken"


def test_a_users_function_is_called(drive: Drive, session: Answering) -> None:
    def steps() -> Steps[int]:
        total: int = yield Call(lambda a, b: a + b, (1, 2))
        try:
            yield Call(int, ("three",))
        except ValueError:
            total += 10
        return total

    assert drive(session, steps()) == 13


async def _user() -> int:
    await asyncio.sleep(0)
    return 1


def _calling() -> Steps[int]:
    return (yield Call(_user))


def test_a_users_coroutine_function_is_awaited(session: Answering) -> None:
    assert _async(session, _calling()) == 1
    with pytest.raises(TypeError, match="async method"):
        _sync(session, _calling())


def test_an_unknown_effect_is_refused(drive: Drive, session: Answering) -> None:
    def steps() -> Steps[None]:
        yield "?"

    with pytest.raises(TypeError, match=r"'\?'"):
        drive(session, steps())


async def test_cancelling_closes_the_operation_and_abandons_its_waiter(session: Answering) -> None:
    log = []

    def steps() -> Steps[None]:
        try:
            yield ask("never")
        except Exception:
            log.append("handled")  # an operation does not handle cancellation
        finally:
            log.append("closed")

    task = asyncio.ensure_future(drivers.arun(session, steps()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["closed"]
    assert [waiter.requests[0].subject for waiter in session.abandoned] == [b"never"]


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "dropped"])
def test_a_late_answer_keeps_no_loop_alive(session: Answering, closed: bool) -> None:
    def steps() -> Steps[None]:
        yield ask("never")

    loop = asyncio.new_event_loop()
    task = loop.create_task(drivers.arun(session, steps()))
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is what is tested
    loop.run_until_complete(asyncio.sleep(0))
    if closed:
        loop.close()
    session.unanswered.pop().answer(0, Reply(b"", b"late"))
    seen = weakref.ref(loop)
    del loop, task
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    assert seen() is None


async def test_closing_the_coroutine_closes_the_operation(session: Answering) -> None:
    log = []

    def steps() -> Steps[None]:
        try:
            yield ask("never")
        finally:
            log.append("closed")

    coroutine = drivers.arun(session, steps())
    coroutine.send(None)
    coroutine.close()
    assert log == ["closed"]
    assert len(session.abandoned) == 1


def _items(log: list[str]) -> Steps[None]:
    try:
        for payload in (b"one", b"two", b"three"):
            reply: Reply = yield ask("a", payload)
            yield Item(reply.payload)
    finally:
        log.append("closed")


def test_an_iteration_yields_its_items(session: Answering) -> None:
    log: list[str] = []
    items = drivers.iterate(session, _items(log))
    assert next(items) == b"ONE"
    assert session.writes == [1]  # the second item is not requested before it is needed
    assert list(items) == [b"TWO", b"THREE"]
    assert log == ["closed"]


def test_closing_an_iteration_closes_the_operation(session: Answering) -> None:
    log: list[str] = []
    for item in (items := drivers.iterate(session, _items(log))):
        assert item == b"ONE"
        break
    items.close()  # type: ignore[attr-defined]
    assert log == ["closed"]
    assert session.writes == [1]


async def test_an_async_iteration_yields_its_items(session: Answering) -> None:
    log: list[str] = []
    assert [item async for item in drivers.aiterate(session, _items(log))] == [
        b"ONE",
        b"TWO",
        b"THREE",
    ]
    items = drivers.aiterate(session, _items(log))
    async for item in items:
        assert item == b"ONE"
        break
    await items.aclose()  # type: ignore[attr-defined]
    assert log == ["closed", "closed"]
