"""The tests of the guarantee find what they are for: each guard is taken away, and they fail."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import pytest

from django_nats.client import copies as original
from django_nats.client import kv
from django_nats.client.copies import Copies
from django_nats.devserver import NatsServer
from django_nats.devserver.files import eventually
from tests.client.interleaving import (
    Actor,
    Violation,
    World,
    fill,
    foreign_put,
    interleavings,
    own_clear,
    put,
    refused,
)
from tests.client.test_copies_interleaved import ANEW, OTHERS
from tests.conftest import api
from tests.nearcache import model
from tests.nearcache.fleet import Fleet
from tests.nearcache.history import Stale
from tests.nearcache.test_model import run
from tests.support.proxy import Proxy

# Every order ---------------------------------------------------------------------------------


class Guard(NamedTuple):
    """A piece of code, what would be there without the guard, and where that is found."""

    code: str
    without: str
    actors: Sequence[Actor]
    misses: bool = True


GUARDS = {
    "an own acknowledgement is no news": Guard(
        "        self._hear(attempt.subject, revision)\n        self._install",
        "        self._install",
        OTHERS["two reads, an own delete"],
        misses=False,
    ),
    "what was read is no news": Guard(
        "            self._hear(attempt.subject, entry.revision)\n",
        "",
        OTHERS["two reads, an eviction"],
    ),
    "no generation": Guard(" or attempt.generation is not self._generation", "", ANEW["a write"]),
    "what was heard of meanwhile does not count": Guard(
        "revision < attempt.seen or ", "", (fill, put, foreign_put)
    ),
    "news do not reach what is on its way": Guard(
        "        _tell(self._attempts.get(subject, ()), revision)\n", "", (fill, put, foreign_put)
    ),
    "news drop nothing": Guard(
        "        if copy is not None and copy.revision < revision:\n"
        "            self._drop(subject)\n",
        "",
        (fill, put, foreign_put),
    ),
    "what was found does not replace what was known": Guard(
        "            self._drop(attempt.subject)\n            if known.revision",
        "            if known.revision",
        ANEW["a write"],
    ),
    "a miss does not reach what is on its way": Guard(
        "other.gone = True", "pass", OTHERS["two reads, a clear"]
    ),
    "a write in doubt drops nothing": Guard(
        "        self._forget(attempt.subject)\n", "", (fill, refused, foreign_put)
    ),
    "a write in doubt does not reach what is on its way": Guard(
        "        _tell(self._attempts.get(subject, ()), EVERYTHING)\n",
        "",
        (fill, refused, foreign_put),
    ),
    "a clear drops nothing": Guard(
        "            if self._by_subject[subject].revision < revision:\n"
        "                self._drop(subject)\n",
        "            pass\n",
        (fill, own_clear, foreign_put),
    ),
    "a clear does not reach what is on its way": Guard(
        "            _tell(attempts, revision)\n",
        "            pass\n",
        OTHERS["two reads, a clear"],
    ),
    "what has ended is still on its way": Guard(
        "            if not attempts:\n                del self._attempts[attempt.subject]\n",
        "",
        (fill, put, foreign_put),
    ),
    "dropped bytes are counted": Guard(
        "            self.bytes -= copy.size\n", "", (fill, put, foreign_put)
    ),
}


def without(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> type[Copies]:
    """The copies as they would be without a guard."""
    source = inspect.getsource(original)
    assert source.count(guard.code) == 1, f"the guard is not where it was: {guard.code}"
    module = ModuleType("django_nats.client.mutated")
    module.__package__ = original.__package__
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(source.replace(guard.code, guard.without), module.__dict__)
    mutated: type[Copies] = module.Copies
    return mutated


@pytest.mark.parametrize("name", GUARDS)
def test_an_order_is_found_that_needs_the_guard(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = GUARDS[name]
    mutated = without(guard, monkeypatch)

    def play(copies: type[Copies]) -> None:
        for _ in interleavings(lambda: World(guard.actors, copies=copies, misses=guard.misses)):
            pass

    with pytest.raises(Violation):
        play(mutated)


def test_an_order_is_found_in_which_only_the_leader_may_be_read() -> None:
    with pytest.raises(Violation):
        for _ in interleavings(lambda: World((fill, put, foreign_put), lagging=True)):
            pass


# The model -----------------------------------------------------------------------------------

_DEAF = """
from django_nats.client.copies import Copies
Copies.changed = lambda *told: None
"""


class Found(BaseException):
    """No failure of a test, which would be played again."""


class Sought(model.Model):
    def judge(self) -> None:
        try:
            super().judge()
        except Stale as stale:
            raise Found from stale


def test_the_model_finds_that_the_feed_tells_nothing(server: NatsServer) -> None:
    with (
        Fleet(server, MAX_STALE=model.MAX_STALE, MISSES=True, mutation=_DEAF) as fleet,
        pytest.raises(Found),
    ):
        run(Sought, fleet, examples=40)


# What only a feed that lags shows ------------------------------------------------------------

_BY_ARRIVAL = """
from time import monotonic
from django_nats.client.feed import Feed
hear = Feed._hear
def by_arrival(feed, reply):
    hear(feed, reply)
    feed._listener.proven(monotonic())
Feed._hear = by_arrival
"""
BOUND = 0.3
"""MAX_STALE of these tests, in seconds."""


PROBES = 300


def last_stale_read(fleet: Fleet) -> float:
    """How long after a change a reader that was stopped under many writes last read the old."""
    (reader,) = fleet.workers
    fleet.cache.set_many({f"probe:{number}": 1 for number in range(PROBES)}, None)
    assert list(reader.do("survey", "probe:", PROBES)) == ["1"]
    reader.pause()
    fleet.flood()
    fleet.cache.set_many({f"probe:{number}": 2 for number in range(PROBES)}, None)
    changed = time.monotonic()
    fleet.flood(3 * BOUND)
    reader.begin([["survey", "probe:", PROBES]])
    reader.resume()
    (done,) = reader.end()
    return float(done["returned"].get("1", changed)) - changed


def test_after_a_stop_nothing_stale_is_read(server: NatsServer) -> None:
    with Fleet(server, near=1, plain=0, MAX_STALE=BOUND) as fleet:
        assert last_stale_read(fleet) < BOUND


def test_judged_by_what_arrives_a_feed_that_lags_looks_current(server: NatsServer) -> None:
    with Fleet(server, near=1, plain=0, MAX_STALE=BOUND, mutation=_BY_ARRIVAL) as fleet:
        assert last_stale_read(fleet) > BOUND


# A connection that counts as lost is opened anew, and with it the feed: nothing is late then.
_NO_PINGS = """
from django_nats.client import connection
connection.PING_INTERVAL = 600.0
"""


def sees_a_delete_late(server: NatsServer) -> bool:
    """Whether a reader learns of a delete that its feed brings after two seconds."""
    with (
        Proxy(server.port, delay=0.001) as proxy,
        Fleet(
            server, near=1, plain=0, location=proxy.url, MAX_STALE=BOUND, mutation=_NO_PINGS
        ) as fleet,
    ):
        (reader,) = fleet.workers
        fleet.cache.set("victim", 1, None)
        assert reader.do("serves", "victim")
        proxy.freeze()
        fleet.flood()  # until the server waits for the reader, and sends no more
        fleet.cache.delete("victim")
        # As long as the server needs to remove a tombstone that is to live for a second.
        fleet.cache.set("second", 1, 1)
        last = {"last_by_subj": f"$KV.{fleet.bucket}.=.1.second"}
        get = f"STREAM.MSG.GET.KV_{fleet.bucket}"
        assert eventually(lambda: "error" in api(fleet.cache, get, last), time.monotonic() + 30)
        proxy.thaw()
        # A read of its own before that would find the delete without the feed.
        fleet.wait_until_served(reader)
        return reader.do("poll", "victim", None, 2) is None


def test_a_delete_is_seen_by_a_feed_that_lags(server: NatsServer) -> None:
    assert sees_a_delete_late(server)


def test_a_tombstone_of_a_second_is_not(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in a few times: a server that waits for ten seconds ends the connection."""
    monkeypatch.setattr(kv, "TOMBSTONE_TTL", "1")
    assert not all(sees_a_delete_late(server) for _ in range(15))
