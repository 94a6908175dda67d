"""A model of the copies and a server, which runs reads, writes and a feed in every order.

The server has one key, whose state is known at every position of the stream. The result of a read
is correct if it is not older than any state that the process knows from the acknowledgement of its
own write, from an earlier read, or from the feed.
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
    """Raised if the guarantee is broken."""


class State(NamedTuple):
    """The state of the key since a position, which is also the payload of its value."""

    position: int
    present: bool
    revision: int
    """The revision on the server. Revisions start again when the stream is recreated."""

    def entry(self) -> Entry | None:
        payload = str(self.position).encode()
        return Entry(payload, None, self.revision, None) if self.present else None


def position_of(entry: Entry | None) -> int | None:
    """Return the position at which a value was stored, or None for no value."""
    return None if entry is None else int(entry.payload)


class World:
    """A server, the copies of one process, and the steps that may happen next."""

    def __init__(
        self,
        actors: Sequence[Actor],
        *,
        copies: type[Copies] = Copies,
        misses: bool = True,
        warm: bool = True,
        lagging: bool = False,
        behind: bool = False,
    ) -> None:
        """Prepare the first state.

        With ``warm``, the key has a value, of which there is a copy. With ``lagging``, reads return
        the state before the current one, as from a replica. With ``behind``, the replica that sends
        the feed is ahead of the leader, which stores changes when it catches up.
        """
        self.lagging = lagging
        self.behind = False
        self.copies = copies(Bounds(misses=misses, max_entries=1), lambda key: True)
        self.caches = NearCaches([self.copies], Clock())
        self.states = [State(0, False, 0)]
        self.position = 0
        self.revision = 10  # higher than any revision of a recreated stream
        self.catch_up()
        self.follows = True
        """False while the feed has not noticed that the stream was recreated."""
        self.events: deque[tuple[int, int, bool]] = deque()
        """Changes to be delivered: revision, position, and True for that of a clear()."""
        self.own = self.read = self.announced = 0
        """Positions of the last own write, the newest state read, and the last one delivered."""
        self.log: list[str] = []
        for _ in range(3 if warm else 0):
            self.store(True)
        self.lose()
        self.open()
        if warm:
            self.copies.end_read(self.copies.begin(KEY, SUBJECT), self.states[-1].entry(), 0.0)
        self.behind = behind
        self._scripts = [actor(self) for actor in actors]
        self._next = [next(script, None) for script in self._scripts]

    # The server ------------------------------------------------------------------------------

    def store(self, present: bool) -> State:
        """Store a value or a tombstone, and announce it. Return the key's new state."""
        self.purge(present)
        self._announce(self.position, cleared=False)
        return self.states[-1]

    def purge(self, present: bool = False) -> int:
        """Change the key's state without announcing it. Return the position."""
        self._store()
        self.states.append(State(self.position, present, self.revision))
        return self.position

    def mark(self, purged: int) -> int:
        """Announce that all keys were deleted. Return the revision of the announcement."""
        self._store()
        self._announce(purged, cleared=True)
        return self.revision

    def _store(self) -> None:
        self.position += 1
        self.revision += 1
        if not self.behind:
            self.catch_up()

    def catch_up(self) -> None:
        """Have the leader store all changes."""
        self.leader = self.position
        self.leader_revision = self.revision

    @property
    def leaders(self) -> State:
        """Return the leader's state of the key."""
        return [each for each in self.states if each.position <= self.leader][-1]

    def recreate(self) -> None:
        """Delete the stream and create another one, which the feed has not noticed yet."""
        self.purge()
        self.revision = 0
        self.follows = False

    def _announce(self, position: int, *, cleared: bool) -> None:
        if self.follows:
            self.events.append((self.revision, position, cleared))

    # The feed --------------------------------------------------------------------------------

    def deliver(self) -> None:
        revision, position, cleared = self.events.popleft()
        self._reported = revision
        if cleared:
            self.copies.cleared(revision)
        else:
            self.copies.changed(SUBJECT, revision)
        self.announced = max(self.announced, position)

    def lose(self) -> None:
        """Break the feed and drop its undelivered changes. The next one begins here, once open."""
        self.copies.shut()
        self.whole = False
        self.follows = True
        self.events.clear()
        self._begins, self._reported = self.position, self.revision

    def open(self) -> None:
        self.copies.opened(self._reported)
        self.prove(self.leader_revision)
        self.whole = True
        self.announced = max(self.announced, self._begins)

    def prove(self, stored: int) -> None:
        self.copies.proven(monotonic() + 3600, stored)

    # What may happen next --------------------------------------------------------------------

    def enabled(self) -> list[Callable[[], None]]:
        """Return the steps that may happen next."""
        steps = [partial(self._go_on, at) for at, name in enumerate(self._next) if name]
        return [*steps, self._deliver_next] if self.events else steps

    def _go_on(self, at: int) -> None:
        self.log.append(self._next[at] or "")
        self._next[at] = next(self._scripts[at], None)
        self._check_copy()

    def _deliver_next(self) -> None:
        self.log.append("the feed delivers a change")
        self.deliver()
        self._check_copy()

    def _check_copy(self) -> None:
        # A find changes nothing, so that a check after every step covers all reads of the copy.
        copy = self.copies.find(KEY)
        if copy is not None:
            if not self.whole:
                self._fail("a copy is served while the feed is not whole")
            self.found(position_of(copy.entry), self.known)
        held = sum(each.size for each in self.copies._copies.values())
        if self.copies.bytes != held:
            self._fail(f"{self.copies.bytes} bytes were counted, but the copies have {held}")

    def end(self) -> None:
        if self.copies._attempts:
            self._fail("an attempt that has ended is still kept")

    # The guarantee ---------------------------------------------------------------------------

    @property
    def known(self) -> dict[str, int]:
        """Return the positions that a read beginning now must not be older than, by source."""
        return {"an own write": self.own, "an earlier read": self.read, "the feed": self.announced}

    def found(self, stored_at: int | None, known: dict[str, int]) -> None:
        """Check the result of a read, for which ``known`` was known when it began.

        ``stored_at`` is the position of the value, or None for a miss.
        """
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
    """Run every possible order of the steps of a world. Yield the world after each run."""
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


# The actors ----------------------------------------------------------------------------------


def fill(world: World) -> Script:
    """Read from the server and make a copy."""
    yield "a fill begins"
    known = world.known
    attempt = world.copies.begin(KEY, SUBJECT)
    yield "the fill reads"
    state = world.states[-2:][0] if world.lagging else world.leaders
    yield "the fill ends"
    entry = state.entry()
    world.copies.end_read(attempt, entry, 0.0)
    if not (world.lagging or world.behind):
        world.found(position_of(entry), known)


def failing_fill(world: World) -> Script:
    """Read from the server without getting an answer."""
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
    world.catch_up()
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
    """Make a conditional write that is refused. The refusal shows that the key has changed."""
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
    yield "the own clear is announced"
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
    yield "the foreign clear is announced"
    world.mark(purged)


def reopening(world: World) -> Script:
    """Break and reopen the feed. Changes that were not delivered before are lost."""
    yield "the feed breaks"
    world.lose()
    yield "the feed is open again"
    world.open()


def catching_up(world: World) -> Script:
    """Have the leader catch up with the replica that sends the feed, and ask for its position."""
    yield "the leader catches up"
    world.catch_up()
    stored = world.leader_revision
    yield "the leader's position is known"
    world.prove(stored)


def other_fill(world: World) -> Script:
    """Read for another operation, such as touch(), which makes no copy."""
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
    """Delete and recreate the stream, as another client, and store a value."""
    yield "the stream is recreated"
    world.recreate()
    yield "a foreign write is applied to the new stream"
    world.store(True)


def eviction(world: World) -> Script:
    """Evict the copy by that of another key, and drop the latter."""
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
