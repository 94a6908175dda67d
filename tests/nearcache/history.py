"""A check that no read in a history of several processes was stale.

A read may return any state that the server's record shows for the key, unless its process knew of
a newer state when the read began: from its own write, from an earlier read, or because the state
was stored longer ago than a change may take to be delivered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tests.nearcache.fleet import Stored

CLOCK_ERROR_S = 0.02
"""Seconds by which a process's estimate of the server's clock may be wrong."""
ANY = object()


class Stale(AssertionError):
    """Raised if a read returned a value that it must not return."""


class Read(NamedTuple):
    process: int
    key: str
    began: float
    ended: float
    value: int | None
    """None for a miss."""


class Write(NamedTuple):
    """A write that was acknowledged."""

    process: int
    key: str
    began: float
    ended: float
    value: Any
    """None for a delete, ANY for a write that kept the value."""


class Clear(NamedTuple):
    process: int
    began: float
    ended: float
    known: bool
    """True if it was acknowledged. Otherwise its outcome is unknown."""


Event = Read | Write | Clear


def events_of(process: int, done: Mapping[str, Any]) -> Iterable[Event]:
    """Yield the events of a worker's operation. Most failed operations have none."""
    (name, *arguments), result = done["op"], done["returned"]
    span = (done["began"], done["ended"])
    error = done["error"]
    if name == "clear":
        yield Clear(process, *span, error is None)
        return
    key = arguments[0]
    if name == "incr" and error == "ValueError":
        yield Read(process, key, *span, None)
    elif error is not None:
        return
    elif name == "get":
        yield Read(process, key, *span, result)
    elif name == "get_many":
        for each in key:
            yield Read(process, each, *span, result.get(each))
    elif name == "set" or (name == "add" and result):
        yield Write(process, key, *span, arguments[1])
    elif name == "set_many":
        for each in set(key) - set(result):
            yield Write(process, each, *span, key[each])
    elif name == "delete":
        yield Write(process, key, *span, None) if result else Read(process, key, *span, None)
    elif name == "delete_many":
        for each in key:
            yield Write(process, each, *span, None)
    elif name == "touch":
        yield Write(process, key, *span, ANY) if result else Read(process, key, *span, None)
    elif name == "incr":
        yield Write(process, key, *span, result)
    elif name == "get_or_set" and result != arguments[1]:
        # Its own default may also be returned after another's value was stored and deleted.
        yield Read(process, key, *span, result)


class History:
    """The stored states, the events, and the allowed delay of changes to each process."""

    def __init__(
        self,
        stored: Mapping[str, Sequence[Stored]],
        clears: Sequence[Stored],
        events: Sequence[Event],
        *,
        epoch: float,
        delay: Mapping[int, float],
    ) -> None:
        """Prepare the check.

        ``epoch`` is the number of seconds by which the server's time is ahead of the times of
        events. ``delay`` maps each process to the allowed delay in seconds.
        """
        self._stored = stored
        self._epoch = epoch
        self._delay = delay
        self._clears = [each for each in events if isinstance(each, Clear)]
        self._marked = clears
        self._by_key: dict[str, list[Read | Write]] = defaultdict(list)
        for event in sorted(events, key=lambda each: each.ended):
            if not isinstance(event, Clear):
                self._by_key[event.key].append(event)
        everything = [each for states in stored.values() for each in states]
        self._lows = {
            clear: max(
                (s.sequence for s in everything if s.at < clear.began + epoch - CLOCK_ERROR_S),
                default=0,
            )
            for clear in self._clears
        }

    def check(self) -> None:
        """Raise Stale for the first read that is wrong."""
        for key, events in self._by_key.items():
            self._check(key, events)

    def _check(self, key: str, events: Sequence[Read | Write]) -> None:
        states = self._states(key)
        known: list[tuple[float, float, int, str]] = []
        """When a state became known, its position, the process that knew it, and how."""
        for clear in self._clears:
            if clear.known:
                known.append((clear.ended, self._lows[clear] + 0.5, clear.process, "its clear"))
        for event in events:
            if isinstance(event, Write):
                position = self._position(event, states)
                known.append((event.ended, position, event.process, "its own write"))
                continue
            floor, why = 0.0, "nothing"
            for when, position, process, reason in known:
                own = process == event.process
                if when > event.began - (0 if own else self._delay[event.process]):
                    continue
                if not own and reason == "an earlier read":
                    continue
                if position > floor:
                    floor, why = position, reason if own else "an earlier write of another process"
            candidates = self._candidates(event, states, floor)
            if not candidates:
                history = "\n  ".join(map(str, (*states, *self._clears, *events)))
                raise Stale(f"{event} is older than {why}, {floor}:\n  {history}")
            position = max(floor, min(candidates))
            known.append((event.ended, position, event.process, "an earlier read"))

    def _states(self, key: str) -> list[Stored]:
        """Return the states of the key, with None at first and after each certain clear()."""
        cleared = [
            Stored(low + 0.5, None, clear.began + self._epoch, None)  # type: ignore[arg-type]
            for clear, low in self._lows.items()
            if clear.known
        ]
        return sorted([Stored(0, None, 0.0, None), *cleared, *self._stored.get(key, ())])

    def _position(self, write: Write, states: Sequence[Stored]) -> float:
        """Return the position of the first state that the write can have stored."""
        for state in states:
            fits = state.value is not None if write.value is ANY else state.value == write.value
            if (
                fits
                and isinstance(state.sequence, int)
                and write.began - CLOCK_ERROR_S
                <= state.at - self._epoch
                <= write.ended + CLOCK_ERROR_S
            ):
                return state.sequence
        raise Stale(f"{write} was acknowledged, but is not stored: {states}")

    def _candidates(self, read: Read, states: Sequence[Stored], floor: float) -> list[float]:
        """Return the positions of the states that the read can have returned."""
        # A state lasts until the next one: the last state before the floor holds at the floor.
        first = max(index for index, state in enumerate(states) if state.sequence <= floor)
        began, ended = read.began + self._epoch, read.ended + self._epoch
        found: list[float] = []
        for state in states[first:]:
            if state.at > ended + CLOCK_ERROR_S:
                continue
            if read.value is not None:
                fits = state.value == read.value
                if fits and (state.expires is None or state.expires > began - CLOCK_ERROR_S):
                    found.append(state.sequence)
            elif state.value is None or (
                state.expires is not None and state.expires < ended + CLOCK_ERROR_S
            ):
                found.append(state.sequence)
        if read.value is None:
            found += [
                max(floor, low + 0.5)
                for clear, low in self._lows.items()
                if clear.began <= read.ended and floor <= self._end(clear)
            ]
        return found

    def _end(self, clear: Clear) -> float:
        """Return the position up to which a clear() can have deleted what was stored."""
        if not clear.known:
            return float("inf")
        return max(
            each.sequence
            for each in self._marked
            if each.at < clear.ended + self._epoch + CLOCK_ERROR_S
        )
