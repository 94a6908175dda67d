"""The tests of the near cache's guarantee fail when any of its guards is removed."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import NamedTuple

import pytest

from django_nats.client import process
from django_nats.client.kv import copies as original
from django_nats.client.kv import tombstones
from django_nats.client.kv.copies import Copies
from django_nats.devserver import NatsServer
from django_nats.devserver.files import eventually
from tests.client.interleaving import (
    Actor,
    Violation,
    World,
    fill,
    foreign_clear,
    foreign_put,
    interleavings,
    own_clear,
    put,
    recreation,
    refused,
)
from tests.client.kv.test_copies_interleaved import BEHIND, OTHERS, RECREATED, REOPENED
from tests.conftest import api
from tests.nearcache import model
from tests.nearcache.fleet import Fleet
from tests.nearcache.history import Stale
from tests.nearcache.test_model import run
from tests.support.proxy import Proxy

pytestmark = pytest.mark.once

# Every order ---------------------------------------------------------------------------------


class Guard(NamedTuple):
    """Guarding code, its replacement without the guard, and the actors that show the fault."""

    code: str
    without: str
    actors: Sequence[Actor]
    misses: bool = True
    behind: bool = False


GUARDS = {
    "announcements are forgotten at once": Guard(
        "        self._announced.add(subject, revision)\n",
        "",
        BEHIND["a read, a change"],
        behind=True,
    ),
    "the announcement of a clear is forgotten at once": Guard(
        "        self._announced.begin(revision)\n",
        "",
        BEHIND["a read, a clear"],
        behind=True,
    ),
    "a new feed takes the leader for as far as itself": Guard(
        "        self._announced.begin(position)\n",
        "        self._announced.begin(0)\n",
        BEHIND["a read, a reopened feed"],
        behind=True,
    ),
    "an answer does not count as a change": Guard(
        "        self._compare(attempt.subject, revision)\n        self._install",
        "        self._install",
        OTHERS["two reads, an own delete"],
        misses=False,
    ),
    "a newer answer does not reach running attempts": Guard(
        "            attempt.newest = max(attempt.newest, revision)\n",
        "",
        OTHERS["two reads, an eviction"],
    ),
    "an older answer does not reach running attempts": Guard(
        "            attempt.oldest = min(attempt.oldest, revision)\n",
        "",
        OTHERS["two reads, a clear"],
    ),
    "an older answer during a read is ignored": Guard(
        "<= revision <= attempt.oldest", "<= revision", RECREATED["two reads"]
    ),
    "an older answer drops no copy": Guard(
        "copy.revision != revision", "copy.revision < revision", RECREATED["another operation"]
    ),
    "an attempt of an earlier generation is copied": Guard(
        " or attempt.generation is not self._generation", "", REOPENED["a write"]
    ),
    "a change during a read is ignored": Guard(
        "attempt.newest <= revision", "revision", (fill, put, foreign_put)
    ),
    "a change does not reach running attempts": Guard(
        "        _tell(self._attempts.get(subject, ()), revision)\n", "", (fill, put, foreign_put)
    ),
    "a change drops no copy": Guard(
        "        if copy is not None and copy.revision < revision:\n"
        "            self._drop(subject)\n",
        "",
        (fill, put, foreign_put),
    ),
    "a read does not replace the copy": Guard(
        "        self._drop(attempt.subject)\n        if not self._whole",
        "        if not self._whole",
        OTHERS["two reads, two changes"],
    ),
    "a write in doubt drops no copy": Guard(
        "        self._forget(attempt.subject)\n", "", (fill, refused, foreign_put)
    ),
    "a write in doubt does not reach running attempts": Guard(
        "        _tell(self._attempts.get(subject, ()), EVERYTHING)\n",
        "",
        (fill, refused, foreign_put),
    ),
    "an own clear drops no copy": Guard(
        "in list(self._by_subject):\n            self._drop(subject)\n",
        "in list(self._by_subject):\n            pass\n",
        (fill, own_clear, foreign_put),
    ),
    "an own clear does not reach running attempts": Guard(
        "            _tell(attempts, EVERYTHING)\n",
        "            pass\n",
        (fill, own_clear, recreation),
    ),
    "a clear drops no copy": Guard(
        "            if self._by_subject[subject].revision < revision:\n"
        "                self._drop(subject)\n",
        "            pass\n",
        (fill, foreign_clear, foreign_put),
    ),
    "a clear does not reach running attempts": Guard(
        "            _tell(attempts, revision)\n",
        "            pass\n",
        OTHERS["two reads, a clear"],
    ),
    "an ended attempt is not removed": Guard(
        "            if not attempts:\n                del self._attempts[attempt.subject]\n",
        "",
        (fill, put, foreign_put),
    ),
    "the bytes of dropped copies are still counted": Guard(
        "            self.bytes -= copy.size\n", "", (fill, put, foreign_put)
    ),
}


def without(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> type[Copies]:
    """Return the class Copies with a guard removed."""
    source = inspect.getsource(original)
    assert source.count(guard.code) == 1, f"the guarding code has changed: {guard.code}"
    module = ModuleType("django_nats.client.mutated")
    module.__package__ = original.__package__
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(source.replace(guard.code, guard.without), module.__dict__)
    mutated: type[Copies] = module.Copies
    return mutated


@pytest.mark.parametrize("name", GUARDS)
def test_some_order_fails_without_the_guard(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = GUARDS[name]
    mutated = without(guard, monkeypatch)

    def play(copies: type[Copies]) -> None:
        options = {"misses": guard.misses, "behind": guard.behind}
        for _ in interleavings(lambda: World(guard.actors, copies=copies, **options)):
            pass

    with pytest.raises(Violation):
        play(mutated)


def test_some_order_fails_if_a_replica_is_read() -> None:
    with pytest.raises(Violation):
        for _ in interleavings(lambda: World((fill, put, foreign_put), lagging=True)):
            pass


# The model -----------------------------------------------------------------------------------

_WITHOUT_CHANGES = """
from django_nats.client.kv.copies import Copies
Copies.changed = lambda *args: None
"""


class StaleReadFound(BaseException):
    """Raised instead of Stale. Hypothesis does not rerun an example that raised it."""


class ModelThatReportsOnce(model.Model):
    def judge(self) -> None:
        try:
            super().judge()
        except Stale as stale:
            raise StaleReadFound from stale


def test_the_model_fails_if_the_feed_delivers_nothing(server: NatsServer) -> None:
    with (
        Fleet(server, MAX_STALE=model.MAX_STALE, MISSES=True, mutation=_WITHOUT_CHANGES) as fleet,
        pytest.raises(StaleReadFound),
    ):
        run(ModelThatReportsOnce, fleet, examples=40)


# A feed that lags ----------------------------------------------------------------------------

_PROVEN_BY_ARRIVAL = """
from time import monotonic
from django_nats.client.feed.feed import EVERYTHING, Feed
receive = Feed._receive
def receive_and_prove(feed, reply):
    receive(feed, reply)
    feed._listener.proven(monotonic(), EVERYTHING)
Feed._receive = receive_and_prove
"""
MAX_STALE_S = 0.3
"""MAX_STALE of these tests, in seconds."""


PROBES = 300


@pytest.fixture
def server() -> Iterator[NatsServer]:
    """Start a server that keeps the connection of a paused reader for minutes."""
    with NatsServer(config='write_deadline: "300s"') as running:
        yield running
        process.close()


def stale_seconds(fleet: Fleet) -> float:
    """Return how long after a change a reader, paused during many writes, read old values."""
    (reader,) = fleet.workers
    fleet.cache.set_many({f"probe:{number}": 1 for number in range(PROBES)}, None)
    assert list(reader.do("survey", "probe:", PROBES)) == ["1"]
    reader.pause()
    fleet.flood()
    fleet.cache.set_many({f"probe:{number}": 2 for number in range(PROBES)}, None)
    changed = time.monotonic()
    fleet.flood(3 * MAX_STALE_S)
    reader.begin([["survey", "probe:", PROBES]])
    reader.resume()
    (done,) = reader.end()
    return float(done["returned"].get("1", changed)) - changed


def test_no_stale_value_is_read_after_the_reader_was_paused(server: NatsServer) -> None:
    with Fleet(server, near=1, plain=0, MAX_STALE=MAX_STALE_S) as fleet:
        assert stale_seconds(fleet) < MAX_STALE_S


def test_a_stale_value_is_read_if_arrival_proves_the_copies(server: NatsServer) -> None:
    with Fleet(
        server, near=1, plain=0, MAX_STALE=MAX_STALE_S, mutation=_PROVEN_BY_ARRIVAL
    ) as fleet:
        assert stale_seconds(fleet) > MAX_STALE_S


# Without pings the connection does not count as lost. A new feed would not be late.
_NO_PINGS = """
from django_nats.client.transport import connection
connection.PING_INTERVAL_S = 600.0
"""


def sees_a_late_delete(server: NatsServer, seconds: float) -> bool:
    """Return True if a reader sees a delete that its feed delivers late.

    ``seconds`` is how long the reader polls once it serves copies again.
    """
    with (
        Proxy(server.port, delay=0.001) as proxy,
        Fleet(
            server, near=1, plain=0, location=proxy.url, MAX_STALE=MAX_STALE_S, mutation=_NO_PINGS
        ) as fleet,
    ):
        (reader,) = fleet.workers
        fleet.cache.set("victim", 1, None)
        end = time.monotonic() + 60
        assert eventually(lambda: reader.do("serves", "victim"), end)
        proxy.freeze()
        fleet.flood()  # until the server waits for the reader and sends no more
        fleet.cache.delete("victim")
        # Wait as long as the server needs to remove a message with a TTL of one second.
        fleet.cache.set("second", 1, 1)
        last = {"last_by_subj": f"$KV.{fleet.bucket}.=.1.second"}
        get = f"STREAM.MSG.GET.KV_{fleet.bucket}"
        assert eventually(lambda: "error" in api(fleet.cache, get, last), time.monotonic() + 60)
        proxy.thaw()
        # A read before that would find the delete on the server, without the feed.
        fleet.wait_until_served(reader)
        return reader.do("poll", "victim", None, seconds) is None


def test_a_delete_reaches_a_feed_that_lags(server: NatsServer) -> None:
    assert sees_a_late_delete(server, 60)


def test_a_delete_is_missed_if_tombstones_last_one_second(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeat the test: a reader that stalls meanwhile asks the server and sees the delete."""
    monkeypatch.setattr(tombstones, "TOMBSTONE_TTL", "1")
    assert not all(sees_a_late_delete(server, 2) for _ in range(15))
