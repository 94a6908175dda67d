"""The loop's thread starts, ends, starts again, and never waits for its own end."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from django_nats.client.transport import loop as loop_module
from django_nats.client.transport.loop import LoopThread
from django_nats.devserver.files import eventually
from django_nats.exceptions import BridgeMisuse, NotSent

PATIENCE = 60.0


async def nothing() -> None: ...


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    made = LoopThread()
    yield made
    made.stop(nothing, PATIENCE, lambda: None)


def within_patience(function: Callable[[], object]) -> None:
    """Call a function in a new thread, which is abandoned if it hangs."""
    caller = threading.Thread(target=function, daemon=True)
    caller.start()
    caller.join(PATIENCE)
    assert not caller.is_alive()


def test_a_call_on_the_ending_loop_does_not_wait_for_its_end(thread: LoopThread) -> None:
    ran_on: list[int] = []
    ident: list[int | None] = []

    async def farewell() -> None:
        done = asyncio.Event()
        ident.append(threading.get_ident())

        def run() -> None:
            ran_on.append(threading.get_ident())
            done.set()

        thread.call(run)
        await done.wait()

    thread.call(lambda: None)
    within_patience(lambda: thread.stop(farewell, 2 * PATIENCE, lambda: None))
    assert ran_on == ident
    assert not thread.alive


def test_the_ending_thread_still_counts_as_the_loops(thread: LoopThread) -> None:
    """A synchronous call on that thread would wait for itself."""
    answers: list[bool] = []

    async def farewell() -> None:
        answers.append(thread.is_current())
        with pytest.raises(BridgeMisuse):
            thread.stop(nothing, PATIENCE, lambda: None)
        answers.append(True)

    thread.call(lambda: None)
    thread.stop(farewell, PATIENCE, lambda: None)
    assert answers == [True, True]
    assert not thread.is_current()


def test_another_thread_that_calls_meanwhile_gets_the_next_loop(thread: LoopThread) -> None:
    first: list[int | None] = []
    ran_on: list[int] = []
    ended = threading.Event()

    def call() -> None:
        thread.call(lambda: ran_on.append(threading.get_ident()))

    caller = threading.Thread(target=call)

    async def farewell() -> None:
        first.append(thread.ident)
        caller.start()

    thread.call(lambda: None)
    thread.stop(farewell, PATIENCE, ended.set)
    caller.join(PATIENCE)
    assert eventually(lambda: bool(ran_on), time.monotonic() + PATIENCE)
    assert ended.is_set()
    assert ran_on == [thread.ident]


def test_a_loop_that_is_held_up_never_runs_its_last_coroutine(thread: LoopThread) -> None:
    """If it ran later, it would close connections that have been opened since."""
    held, later = threading.Event(), threading.Event()
    said: list[str] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def farewell() -> None:
        said.append("farewell")

    thread.call(lambda: (loops.append(asyncio.get_running_loop()), held.wait()))
    thread.stop(farewell, 0.05, lambda: said.append("afterwards"))
    assert said == ["afterwards"]
    thread.call(later.set)
    assert later.wait(PATIENCE)
    held.set()
    assert eventually(loops[0].is_closed, time.monotonic() + PATIENCE)
    assert said == ["afterwards"]


def test_tasks_that_start_at_the_end_are_cancelled_too(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "_CANCEL_GRACE_S", PATIENCE)
    ends: list[str] = []

    async def last() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("last")

    async def first() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            tasks.append(asyncio.get_running_loop().create_task(last()))
            await asyncio.sleep(0)
            ends.append("first")

    tasks: list[asyncio.Task[None]] = []
    thread.call(lambda: tasks.append(asyncio.get_running_loop().create_task(first())))
    thread.stop(nothing, PATIENCE, lambda: None)
    assert sorted(ends) == ["first", "last"]
    assert all(task.cancelled() for task in tasks)


@pytest.mark.usefixtures("loop_name")
@pytest.mark.parametrize("iterations", range(8))
def test_a_task_that_starts_in_the_loops_last_iterations_is_cancelled_too(
    monkeypatch: pytest.MonkeyPatch, iterations: int
) -> None:
    """Otherwise it would be destroyed while it is pending."""
    monkeypatch.setattr(loop_module, "_CANCEL_GRACE_S", PATIENCE)
    tasks: list[asyncio.Task[None]] = []

    async def last() -> None:
        await asyncio.Event().wait()

    async def first() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            start_after(iterations)

    def start_after(iterations: int) -> None:
        loop = asyncio.get_running_loop()
        if iterations:
            loop.call_soon(start_after, iterations - 1)
        else:
            tasks.append(loop.create_task(last()))

    thread = LoopThread()
    thread.call(lambda: tasks.append(asyncio.get_running_loop().create_task(first())))
    thread.stop(nothing, PATIENCE, lambda: None)
    assert [each.done() for each in tasks] == [True] * len(tasks)


@contextmanager
def handling(handler: Callable[[], object]) -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, lambda *_: handler())
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


class TestInASignalsHandler:
    """The interrupted thread may hold a lock that the call would wait for."""

    def test_a_call_during_the_end_is_refused(self, thread: LoopThread) -> None:
        refused: list[str] = []

        def handle() -> None:
            for use in (
                lambda: thread.call(lambda: None),
                lambda: thread.stop(nothing, PATIENCE, lambda: None),
            ):
                with pytest.raises(NotSent, match="handler has interrupted") as raised:
                    use()
                refused.append(str(raised.value))
            handled[0].call_soon_threadsafe(done.set)

        done = asyncio.Event()
        handled: list[asyncio.AbstractEventLoop] = []

        async def farewell() -> None:
            handled.append(asyncio.get_running_loop())
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGUSR1)
            await done.wait()

        thread.call(lambda: None)
        with handling(handle):
            thread.stop(farewell, PATIENCE, lambda: None)
        assert len(refused) == 2
        again = threading.Event()
        thread.call(again.set)
        assert again.wait(PATIENCE)

    def test_a_call_does_not_wait_for_the_start_or_end_that_it_interrupts(self) -> None:
        """The start and the end are interrupted at each line.

        The test has its own LoopThread, since the end of the fixture's would wait, too.
        """
        thread, lines = LoopThread(), 0

        def trace(frame: Any, event: str, arg: object) -> Any:
            nonlocal lines
            if frame.f_code.co_filename != loop_module.__file__:
                return None
            if event == "line":
                lines += 1
                with suppress(NotSent):
                    thread.call(lambda: None)
            return trace

        def start() -> None:
            sys.settrace(trace)
            try:
                thread.call(done.set)
                thread.stop(nothing, PATIENCE, lambda: None)
            finally:
                sys.settrace(None)

        done = threading.Event()
        within_patience(start)
        assert lines > 10
        thread.stop(nothing, PATIENCE, lambda: None)

    def test_a_call_during_the_start_is_refused(
        self, thread: LoopThread, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        refused: list[str] = []

        def handle() -> None:
            with pytest.raises(NotSent, match="handler has interrupted") as raised:
                thread.call(lambda: None)
            refused.append(str(raised.value))

        start = threading.Thread.start

        def interrupted(starting: threading.Thread) -> None:
            signal.raise_signal(signal.SIGUSR1)
            start(starting)

        done = threading.Event()
        with handling(handle), monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", interrupted)
            thread.call(done.set)
        assert done.wait(PATIENCE)
        assert len(refused) == 1
