"""Whether what processes have read can be told apart from one copy that is never wrong for long.

A read began and ended at some time; what it may return is any state that the key had, by the
server's own record, not before the newest of which its process then knew: by a write of its own,
by an earlier read, or because it was stored longer ago than news may take to arrive.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tests.nearcache.fleet import Stored

CLOCK = 0.02
"""Seconds by which two readings of one clock may differ: a process estimates the server's."""
ANY = object()


class Stale(AssertionError):
    """A read returned what it may not."""


class Read(NamedTuple):
    process: int
    key: str
    began: float
    ended: float
    value: int | None
    """None for a miss."""


class Write(NamedTuple):
    """One that was acknowledged."""

    process: int
    key: str
    began: float
    ended: float
    value: Any
    """None for a delete, ANY for one that kept what was there."""


class Clear(NamedTuple):
    process: int
    began: float
    ended: float
    known: bool
    """Whether it was acknowledged; else it may have happened, or not."""


Event = Read | Write | Clear


def events_of(process: int, done: Mapping[str, Any]) -> Iterable[Event]:
    """What a worker's operation says of keys; of one that failed, nothing is known."""
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
        # Its own is returned, too, when another's came and went meanwhile.
        yield Read(process, key, *span, result)


class History:
    """What was stored, what was read, and how long news may take to a process."""

    def __init__(
        self,
        stored: Mapping[str, Sequence[Stored]],
        clears: Sequence[Stored],
        events: Sequence[Event],
        *,
        epoch: float,
        delay: Mapping[int, float],
    ) -> None:
        """``epoch``: what the server's time is ahead of that of events; ``delay``: seconds."""
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
                (s.sequence for s in everything if s.at < clear.began + epoch - CLOCK), default=0
            )
            for clear in self._clears
        }

    def check(self) -> None:
        """Raises Stale for the first read that is wrong."""
        for key, events in self._by_key.items():
            self._check(key, events)

    def _check(self, key: str, events: Sequence[Read | Write]) -> None:
        states = self._states(key)
        known: list[tuple[float, float, int, str]] = []
        """When it was known, at which position, to whom, and why."""
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
                    floor, why = position, reason if own else "another's write of long ago"
            candidates = self._candidates(event, states, floor)
            if not candidates:
                history = "\n  ".join(map(str, (*states, *self._clears, *events)))
                raise Stale(f"{event} is older than {why}, {floor}:\n  {history}")
            position = max(floor, min(candidates))
            known.append((event.ended, position, event.process, "an earlier read"))

    def _states(self, key: str) -> list[Stored]:
        """What the key had: nothing at first, and nothing after a clear() that is certain."""
        gone = [
            Stored(low + 0.5, None, clear.began + self._epoch, None)  # type: ignore[arg-type]
            for clear, low in self._lows.items()
            if clear.known
        ]
        return sorted([Stored(0, None, 0.0, None), *gone, *self._stored.get(key, ())])

    def _position(self, write: Write, states: Sequence[Stored]) -> float:
        """The first state that it can have made."""
        for state in states:
            fits = state.value is not None if write.value is ANY else state.value == write.value
            if (
                fits
                and isinstance(state.sequence, int)
                and write.began - CLOCK <= state.at - self._epoch <= write.ended + CLOCK
            ):
                return state.sequence
        raise Stale(f"{write} was acknowledged, and is not stored: {states}")

    def _candidates(self, read: Read, states: Sequence[Stored], floor: float) -> list[float]:
        """The positions at which the read can have found what it did."""
        # A state lasts until the next: the one before the floor may be that at the floor.
        first = max(index for index, state in enumerate(states) if state.sequence <= floor)
        began, ended = read.began + self._epoch, read.ended + self._epoch
        found: list[float] = []
        for state in states[first:]:
            if state.at > ended + CLOCK:
                continue
            if read.value is not None:
                fits = state.value == read.value
                if fits and (state.expires is None or state.expires > began - CLOCK):
                    found.append(state.sequence)
            elif state.value is None or (
                state.expires is not None and state.expires < ended + CLOCK
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
        """Before which position a clear() can have removed what was stored."""
        if not clear.known:
            return float("inf")
        return max(
            each.sequence for each in self._marked if each.at < clear.ended + self._epoch + CLOCK
        )
