"""A state machine that runs random operations in several processes and checks every read."""

from __future__ import annotations

import itertools
import time
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.nearcache.fleet import Fleet
from tests.nearcache.history import Event, History, events_of

MAX_STALE = 0.25
DELAY_S = MAX_STALE + 0.15
"""MAX_STALE and the delay that a busy machine may add before a read begins."""
PAUSE_S = 0.7
"""How long the server is paused: longer than requests wait and copies are served."""

names = st.sampled_from("abc")
several = st.lists(names, min_size=1, max_size=3, unique=True)
timeouts = st.sampled_from([None, None, 60, 0.08])
calls = st.one_of(
    st.tuples(st.just("get"), names),
    st.tuples(st.just("get"), names),
    st.tuples(st.just("get"), names),
    st.tuples(st.just("get_many"), several),
    st.tuples(st.sampled_from(["set", "set", "add", "get_or_set"]), names, timeouts),
    st.tuples(st.just("set_many"), several, timeouts),
    st.tuples(st.just("delete"), names),
    st.tuples(st.just("delete_many"), several),
    st.tuples(st.just("touch"), names, timeouts),
    st.tuples(st.just("incr"), names),
)
programs = st.lists(calls, max_size=6)
threads = st.tuples(programs, programs, programs)
"""The operations of two threads and an event loop."""
_numbers = itertools.count(1)


class Model(RuleBasedStateMachine):
    """A state machine over the workers of ``fleet``, which subclasses set."""

    fleet: Fleet

    def __init__(self) -> None:
        super().__init__()
        self.prefix = f"{next(_numbers)}:"
        self.events: list[Event] = []

    @rule(data=st.data())
    def together(self, data: st.DataObject) -> None:
        """Run operations in every process, on two threads and an event loop."""
        self._begin(data)
        self._end()

    @rule(worker=st.integers(0, 2), call=calls)
    def alone(self, worker: int, call: tuple[Any, ...]) -> None:
        self.fleet.workers[worker].begin([self._op(call)])
        self._note(worker)

    @rule(worker=st.integers(0, 2), data=st.data())
    def clear(self, worker: int, data: st.DataObject) -> None:
        """Clear the bucket in one process during the operations of the others."""
        self._begin(data, {worker: ["clear"]})
        self._end()

    @rule(seconds=st.sampled_from([0.05, 0.1]))
    def wait(self, seconds: float) -> None:
        """Let values expire and changes be delivered."""
        time.sleep(seconds)

    @rule(worker=st.integers(0, 2), call=calls | st.just(("clear",)))
    def later(self, worker: int, call: tuple[Any, ...]) -> None:
        """Make a change while all workers have copies, and read after it was delivered."""
        self._all_read()
        self.alone(worker, call)
        time.sleep(DELAY_S + 0.02)
        self._all_read()

    def teardown(self) -> None:
        self.judge()

    def judge(self) -> None:
        fleet = self.fleet
        fleet.settle()
        stored = {k: list(v) for k, v in fleet.record.stored.items() if k.startswith(self.prefix)}
        History(
            stored,
            fleet.record.clears,
            self.events,
            epoch=fleet.epoch,
            delay={at: DELAY_S if each.near else 0.0 for at, each in enumerate(fleet.workers)},
        ).check()

    # -----------------------------------------------------------------------------------------

    def _begin(self, data: st.DataObject, first: dict[int, list[Any]] | None = None) -> None:
        # Draw all programs before any begins, because drawing may end the run.
        for at, drawn in enumerate([data.draw(threads) for _ in self.fleet.workers]):
            one, other, loop = ([self._op(call) for call in program] for program in drawn)
            if first and at in first:
                one.insert(len(one) // 2, first[at])
            self.fleet.workers[at].begin(one, other, loop=loop)

    def _all_read(self) -> None:
        for worker in self.fleet.workers:
            worker.begin([self._op(("get_many", ["a", "b", "c"]))])
        self._end()

    def _end(self) -> None:
        for at in range(len(self.fleet.workers)):
            self._note(at)

    def _note(self, worker: int) -> None:
        for done in self.fleet.workers[worker].end():
            self.events += events_of(worker, done)

    def _op(self, call: tuple[Any, ...]) -> list[Any]:
        """Return the call with keys of this run and values that no other call has stored."""
        if call == ("clear",):
            return ["clear"]
        name, what, *rest = call
        if name == "set_many":
            return [name, {self.prefix + each: self._value() for each in what}, *rest]
        if isinstance(what, list):
            return [name, [self.prefix + each for each in what]]
        if name in ("set", "add", "get_or_set"):
            rest.insert(0, self._value())
        return [name, self.prefix + what, *rest]

    def _value(self) -> int:
        return 1000 * next(_numbers)  # leaves room for increments


class ModelWithPauses(Model):
    """The model with a server that is paused: the outcome of some writes is unknown."""

    @rule(data=st.data())
    def server_stops(self, data: st.DataObject) -> None:
        self.fleet.server.pause()
        try:
            self._begin(data)
            time.sleep(PAUSE_S)
        finally:
            self.fleet.server.resume()
        self._end()
