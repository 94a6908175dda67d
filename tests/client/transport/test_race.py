"""Attempts that begin one after another: when each begins, and what is left of the others.

What real servers and addresses make of it is tested in test_addresses.py and test_discovery.py.
"""

from __future__ import annotations

import asyncio
import gc
import math
from typing import Any
from weakref import ref

import pytest

from django_nats.client.transport import race
from django_nats.client.transport.progress import Stage
from django_nats.client.transport.race import Attempt, Race
from django_nats.exceptions import NotSent
from tests.support.answers import Clock

HOURS = 10_000.0
"""Seconds that never pass in a test."""


class Made:
    """A connection."""

    def __init__(self) -> None:
        self.aborted = asyncio.Event()

    def abort(self) -> None:
        self.aborted.set()


class Step:
    """An attempt that ends when the test says so."""

    def __init__(self, *, greeted: bool = False, stage: Stage = Stage.CONNECTING) -> None:
        self.begun = asyncio.Event()
        self.outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.stage = stage
        self.greeted = greeted

    async def run(self) -> Any:
        self.begun.set()
        return await self.outcome

    def late(self) -> Exception:
        return NotSent("too late")


class Failing(Step):
    def __init__(self, error: Exception, **options: Any) -> None:
        super().__init__(**options)
        self.outcome.set_exception(error)


class Stubborn(Step):
    """An attempt that has made a connection when it is cancelled."""

    def __init__(self, made: Made) -> None:
        super().__init__()
        self.made = made

    async def run(self) -> Any:
        try:
            return await super().run()
        except asyncio.CancelledError:
            return self.made


class Slow(Step):
    """An attempt that takes all of the time, and then returns another one."""

    def __init__(self, clock: Clock, following: Step) -> None:
        super().__init__(stage=Stage.LOOKUP)
        self.clock = clock
        self.following = following

    async def run(self) -> list[Step]:
        self.clock.now += HOURS
        return [self.following]


def racing(
    *attempts: Attempt, seconds: float = HOURS, together: bool = True
) -> asyncio.Task[tuple[Any, list[Exception]]]:
    async def run() -> tuple[Any, list[Exception]]:
        failures: list[Exception] = []
        return await Race(attempts, seconds, together=together).run(failures), failures

    return asyncio.ensure_future(run())


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no attempt begin only because time has passed."""
    monkeypatch.setattr(race, "_STAGGER_S", HOURS)
    monkeypatch.setattr(race, "_LOGIN_S", HOURS)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an attempt begin when the one before has begun, but for logins."""
    monkeypatch.setattr(race, "_STAGGER_S", 0.0)
    monkeypatch.setattr(race, "_LOGIN_S", HOURS)


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.usefixtures("never")
async def test_the_next_attempt_begins_as_soon_as_one_fails() -> None:
    refused, next_one, made = ConnectionRefusedError(), Step(), Made()
    running = racing(Failing(refused), next_one)
    next_one.outcome.set_result(made)
    assert await running == (made, [refused])


@pytest.mark.usefixtures("never")
async def test_an_attempt_is_alone_for_a_while() -> None:
    first, second, made = Step(), Step(), Made()
    running = racing(first, second)
    await turns()
    assert first.begun.is_set()
    assert not second.begun.is_set()
    first.outcome.set_result(made)
    assert await running == (made, [])


async def test_the_next_attempt_begins_when_the_one_before_is_silent() -> None:
    first, second, made = Step(), Step(), Made()
    running = racing(first, second)
    await second.begun.wait()
    second.outcome.set_result(made)
    assert (await running)[0] is made
    await turns()
    assert first.outcome.cancelled()


@pytest.mark.usefixtures("at_once")
async def test_no_second_login_begins_while_a_server_checks_the_first() -> None:
    first, second, made = Step(greeted=True), Step(), Made()
    running = racing(first, second)
    await first.begun.wait()
    await turns()
    assert not second.begun.is_set()
    first.outcome.set_result(made)
    await running


async def test_a_server_that_hangs_in_its_login_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(race, "_LOGIN_S", 0.05)
    first, second, made = Step(greeted=True), Step(), Made()
    running = racing(first, second)
    await second.begun.wait()
    second.outcome.set_result(made)
    assert (await running)[0] is made


@pytest.mark.usefixtures("never")
async def test_the_addresses_of_a_name_come_before_the_next_server() -> None:
    refused, found = ConnectionRefusedError(), Step()
    look_up, last, made = Step(), Step(), Made()
    running = racing(look_up, last)
    look_up.outcome.set_result([Failing(refused), found])
    await found.begun.wait()
    assert not last.begun.is_set()
    found.outcome.set_result(made)
    assert await running == (made, [refused])


@pytest.mark.usefixtures("at_once")
async def test_of_two_connections_one_is_closed() -> None:
    first, second, made = Step(), Step(), [Made(), Made()]
    running = racing(first, second)
    await second.begun.wait()
    await turns()
    first.outcome.set_result(made[0])
    second.outcome.set_result(made[1])
    winner, _ = await running
    (loser,) = (each for each in made if each is not winner)
    await asyncio.wait_for(loser.aborted.wait(), 60)
    assert not winner.aborted.is_set()


@pytest.mark.usefixtures("at_once")
async def test_a_connection_that_is_made_all_the_same_is_closed() -> None:
    late, made = Made(), Made()
    stubborn, second = Stubborn(late), Step()
    running = racing(stubborn, second)
    await second.begun.wait()
    second.outcome.set_result(made)
    await running
    await asyncio.wait_for(late.aborted.wait(), 60)


@pytest.mark.usefixtures("at_once")
async def test_an_attempt_that_goes_on_when_it_is_dropped_is_kept_until_its_end() -> None:
    """Otherwise its task might be destroyed, and its socket left open."""

    class Deaf(Step):
        async def run(self) -> Any:
            try:
                return await super().run()
            except asyncio.CancelledError:
                self.outcome = asyncio.get_running_loop().create_future()
                return await self.outcome

    deaf, made = Deaf(), Made()
    running = racing(deaf)
    await deaf.begun.wait()
    running.cancel()
    await asyncio.wait([running])
    outcome = ref(deaf.outcome)
    del deaf, running
    gc.collect()
    kept: asyncio.Future[Any] | None = outcome()
    assert kept is not None
    kept.set_result(made)
    await made.aborted.wait()


async def test_a_race_that_is_cancelled_leaves_no_attempt_behind() -> None:
    late = Made()
    stubborn, second = Stubborn(late), Step()
    running = racing(stubborn, second)
    await second.begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.wait_for(late.aborted.wait(), 60)
    assert second.outcome.cancelled()


async def test_the_failure_that_has_come_furthest_is_raised() -> None:
    login = NotSent("authorization violation")
    others = [ConnectionRefusedError(), ConnectionResetError()]
    running = racing(Failing(others[0]), Failing(login, stage=Stage.LOGIN), Failing(others[1]))
    with pytest.raises(NotSent) as caught:
        await running
    assert caught.value is login


@pytest.mark.parametrize("together", [True, False])
async def test_attempts_that_take_too_long_fail(together: bool) -> None:
    attempts = [Step(), Step(greeted=True), Step()]
    with pytest.raises(NotSent, match="too late"):
        await racing(*attempts, seconds=0.1, together=together)
    await turns()
    assert all(each.outcome.cancelled() or not each.begun.is_set() for each in attempts)


@pytest.mark.parametrize("count", [1, 6, 100])
async def test_all_attempts_begin_in_the_first_half_of_the_time(count: int) -> None:
    running = Race([Step() for _ in range(count)], 2.0, together=True)
    running._last_start = 0.0
    assert running._next_start() * count <= 1.0
    assert running._next_start() <= 0.25


async def test_an_address_is_no_further_attempt_beside_its_look_up() -> None:
    running = Race([Step() for _ in range(4)], 2.0, together=True)
    running._last_start = 0.0
    before = running._next_start()
    running._queue.popleft()
    running._replace([Step()])
    running._last_start = 0.0
    assert running._next_start() == before == 0.25


async def test_a_server_that_has_greeted_has_its_own_time_only_in_the_background() -> None:
    for together, end in ((True, 2.0), (False, 2.9)):
        running = Race([], 2.0, together=together)
        running._began = 0.0
        assert running._end(Step(greeted=True), 0.9) == end
        assert running._end(Step(), 0.9) == 2.0
        assert math.isfinite(running._end(Step(), 5.0))


async def test_an_attempt_for_which_no_time_is_left_is_reported_as_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(race, "monotonic", clock)
    following = Step()
    with pytest.raises(NotSent, match="too late"):
        await racing(Slow(clock, following))
    assert not following.begun.is_set()
