"""Every order in which reads, writes and a feed can meet at the copies, against a small server.

The server has one key, whose state is known at every position of the stream. A read is right that
is not older than what its process knows of: by the acknowledgement of its own write, by
an earlier read, or by the feed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import monotonic
from typing import NamedTuple

from django_nats.client.kv.copies import Bounds, Copies
from django_nats.client.kv.entry import Entry
from django_nats.client.kv.near_caches import NearCaches
from django_nats.client.streams.clock import Clock

KEY, SUBJECT = ":1:key", "$KV.b.=.1.key"
OTHER_KEY, OTHER_SUBJECT = ":1:other", "$KV.b.=.1.other"

Script = Iterator[str]
"""Yields the name of each step before it is done."""


class Violation(AssertionError):
    """The guarantee was broken."""


class State(NamedTuple):
    """The state of the key from a position on. Its payload tells the position of a value."""

    position: int
    present: bool
    revision: int
    """What the server counts, which begins again when the stream is recreated."""

    def entry(self) -> Entry | None:
        payload = str(self.position).encode()
        return Entry(payload, None, self.revision, None) if self.present else None


def position_of(entry: Entry | None) -> int | None:
    """Return the position at which a value was stored, or None for no value."""
    return None if entry is None else int(entry.payload)


class World:
    """A server, the copies of one process, and what may happen next."""

    def __init__(
        self,
        actors: Sequence[Actor],
        *,
        copies: type[Copies] = Copies,
        misses: bool = True,
        warm: bool = True,
        lagging: bool = False,
    ) -> None:
        """``warm``: there is a value, and a copy. ``lagging``: reads find the state before."""
        self.lagging = lagging
        self.copies = copies(Bounds(misses=misses, max_entries=1), lambda key: True)
        self.caches = NearCaches([self.copies], Clock())
        self.states = [State(0, False, 0)]
        self.position = 0
        self.revision = 10  # a recreated stream does not get as far
        self.follows = True
        """Whether the feed follows the present stream."""
        self.events: deque[tuple[int, int, bool]] = deque()
        """Revision, position that it tells of, and whether it is that of a clear()."""
        self.own = self.read = self.told = 0
        """Positions: the last own write, the newest state read, the last announced by the feed."""
        self.log: list[str] = []
        for _ in range(3 if warm else 0):
            self.store(True)
        self.lose()
        self.open()
        if warm:
            self.copies.end_read(self.copies.begin(KEY, SUBJECT), self.states[-1].entry(), 0.0)
        self._scripts = [actor(self) for actor in actors]
        self._next = [next(script, None) for script in self._scripts]

    # The server ------------------------------------------------------------------------------

    def store(self, present: bool) -> State:
        """Store a value or a tombstone, and announce it. Return the key's new state."""
        self.purge(present)
        self._announce(self.position, cleared=False)
        return self.states[-1]

    def purge(self, present: bool = False) -> int:
        """Change the key's state without an announcement, and return the position."""
        self.position += 1
        self.revision += 1
        self.states.append(State(self.position, present, self.revision))
        return self.position

    def mark(self, purged: int) -> int:
        """Have the feed announce that all was purged, and return the revision of that."""
        self.position += 1
        self.revision += 1
        self._announce(purged, cleared=True)
        return self.revision

    def recreate(self) -> None:
        """Delete the stream and make another one, which the feed does not notice yet."""
        self.purge()
        self.revision = 0
        self.follows = False

    def _announce(self, position: int, *, cleared: bool) -> None:
        if self.follows:
            self.events.append((self.revision, position, cleared))

    # The feed --------------------------------------------------------------------------------

    def deliver(self) -> None:
        revision, position, cleared = self.events.popleft()
        if cleared:
            self.copies.cleared(revision)
        else:
            self.copies.changed(SUBJECT, revision)
        self.told = max(self.told, position)

    def lose(self) -> None:
        """The feed breaks, with what it had still to tell; another begins here, not open yet."""
        self.copies.shut()
        self.whole = False
        self.follows = True
        self.events.clear()
        self._begins = self.position

    def open(self) -> None:
        self.copies.opened()
        self.copies.proven(monotonic() + 3600)
        self.whole = True
        self.told = max(self.told, self._begins)

    # What may happen next --------------------------------------------------------------------

    def enabled(self) -> list[Callable[[], None]]:
        """The steps that may be the next."""
        steps = [partial(self._go_on, at) for at, name in enumerate(self._next) if name]
        return [*steps, self._tell] if self.events else steps

    def _go_on(self, at: int) -> None:
        self.log.append(self._next[at] or "")
        self._next[at] = next(self._scripts[at], None)
        self._look()

    def _tell(self) -> None:
        self.log.append("the feed tells")
        self.deliver()
        self._look()

    def _look(self) -> None:
        # A find changes nothing: whoever looks after every step sees what any fewer would.
        copy = self.copies.find(KEY)
        if copy is not None:
            if not self.whole:
                self._fail("a copy is served while the feed is not whole")
            self.found(position_of(copy.entry), self.known)
        held = sum(each.size for each in self.copies._copies.values())
        if self.copies.bytes != held:
            self._fail(f"{self.copies.bytes} bytes are counted where {held} are held")

    def end(self) -> None:
        if self.copies._attempts:
            self._fail("attempts are kept that have ended")

    # The guarantee ---------------------------------------------------------------------------

    @property
    def known(self) -> dict[str, int]:
        """What a read that begins now may not be older than."""
        return {"an own write": self.own, "an earlier read": self.read, "the feed": self.told}

    def found(self, stored_at: int | None, known: dict[str, int]) -> None:
        """A read that began when so much was known has found a value, or None for a miss."""
        if stored_at is not None and stored_at >= max(known.values()):
            self.read = max(self.read, stored_at)
            return
        candidates = self.states
        for why, position in known.items():
            current = max(each.position for each in self.states if each.position <= position)
            candidates = [
                each
                for each in candidates
                if each.position >= current
                and (not each.present if stored_at is None else each.position == stored_at)
            ]
            if not candidates:
                what = "a miss" if stored_at is None else f"the value of position {stored_at}"
                self._fail(f"{what} is older than {why}, {position}")
        self.read = max(self.read, candidates[0].position)

    def _fail(self, why: str) -> None:
        raise Violation(f"{why}, after: {', '.join(self.log)}")


Actor = Callable[[World], Script]


def interleavings(start: Callable[[], World]) -> Iterator[World]:
    """Every order of the steps of a world, each played to its end."""
    path: list[int] = []
    while True:
        world = start()
        taken: list[tuple[int, int]] = []
        while enabled := world.enabled():
            choice = path[len(taken)] if len(taken) < len(path) else 0
            taken.append((choice, len(enabled)))
            enabled[choice]()
        world.end()
        yield world
        while taken and taken[-1][0] + 1 == taken[-1][1]:
            taken.pop()
        if not taken:
            return
        path = [choice for choice, _ in taken]
        path[-1] += 1


# What takes part -----------------------------------------------------------------------------


def fill(world: World) -> Script:
    """A read of the server, of which a copy is made."""
    yield "a fill begins"
    known = world.known
    attempt = world.copies.begin(KEY, SUBJECT)
    yield "the fill reads"
    state = world.states[-2:][0] if world.lagging else world.states[-1]
    yield "the fill ends"
    entry = state.entry()
    world.copies.end_read(attempt, entry, 0.0)
    if not world.lagging:
        world.found(position_of(entry), known)


def failing_fill(world: World) -> Script:
    """A read that brings no answer."""
    yield "a fill begins"
    attempt = world.copies.begin(KEY, SUBJECT)
    yield "the fill fails"
    world.copies.give_up(attempt)


def _own(present: bool, world: World) -> Script:
    yield "an own write begins"
    attempt = world.copies.begin(KEY, SUBJECT)
    yield f"it is applied, {present=}"
    state = world.store(present)
    yield "the own write is acknowledged"
    world.copies.end_write(attempt, state.entry(), state.revision, 0.0)
    world.own = max(world.own, state.position)


def _in_doubt(applied: str, present: bool, world: World) -> Script:
    yield "an own write begins"
    attempt = world.copies.begin(KEY, SUBJECT)
    if applied == "before":
        yield f"it is applied, {present=}"
        world.store(present)
    yield "the own write ends in doubt"
    world.copies.end_in_doubt(attempt)
    if applied == "after":
        yield f"it is applied, {present=}"
        world.store(present)


def refused(world: World) -> Script:
    """A conditional write finds another state than it expects, by which that is known."""
    yield "an own write begins"
    attempt = world.copies.begin(KEY, SUBJECT)
    yield "it is refused"
    position = world.states[-1].position
    yield "the refusal is known"
    world.copies.end_in_doubt(attempt)
    world.read = max(world.read, position)


def own_clear(world: World) -> Script:
    yield "an own clear purges"
    purged = world.purge()
    yield "the own clear says so"
    world.mark(purged)
    yield "the own clear is acknowledged"
    world.caches.forget_all()
    world.own = max(world.own, purged)


def _foreign(present: bool, world: World) -> Script:
    yield f"a foreign write is applied, {present=}"
    world.store(present)


def foreign_clear(world: World) -> Script:
    yield "a foreign clear purges"
    purged = world.purge()
    yield "the foreign clear says so"
    world.mark(purged)


def reopening(world: World) -> Script:
    """The feed breaks and is opened again; what was not delivered by then never is."""
    yield "the feed breaks"
    world.lose()
    yield "the feed is open again"
    world.open()


def other_fill(world: World) -> Script:
    """A read by another operation, which makes no copy, such as that of touch()."""
    yield "another operation begins"
    known = world.known
    yield "another operation reads"
    state = world.states[-1]
    yield "another operation has read"
    entry = state.entry()
    if entry is None:
        world.caches.forget(SUBJECT)
    else:
        world.caches.found(SUBJECT, entry.revision)
    world.found(position_of(entry), known)


def recreation(world: World) -> Script:
    """Another client deletes the stream, and it is made again with a value."""
    yield "the stream is recreated"
    world.recreate()
    yield "a foreign write is applied to the new stream"
    world.store(True)


def eviction(world: World) -> Script:
    """Another key's copy takes the room, and goes."""
    yield "another key is copied"
    attempt = world.copies.begin(OTHER_KEY, OTHER_SUBJECT)
    world.copies.end_read(attempt, Entry(b"", None, 1, None), 0.0)
    world.copies.forget(OTHER_SUBJECT)


put: Actor = partial(_own, True)
delete: Actor = partial(_own, False)
foreign_put: Actor = partial(_foreign, True)
foreign_delete: Actor = partial(_foreign, False)
in_doubt: dict[str, Actor] = {
    f"{'put' if present else 'delete'}, applied {applied}": partial(_in_doubt, applied, present)
    for present in (True, False)
    for applied in ("before", "after", "never")
}
