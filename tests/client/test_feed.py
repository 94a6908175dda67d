"""One life of a feed: each sign that it may have missed something ends it, and the next begins."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator

import pytest

from django_nats.cache import NatsCache
from django_nats.client import bridge, watch
from django_nats.client.faults import explain
from django_nats.client.streamconfig import NANOSECONDS
from django_nats.devserver import NatsServer
from django_nats.exceptions import NatsError
from tests.conftest import MakeCache, api
from tests.support.following import Following, forge, listening, publish
from tests.support.proxy import Proxy


@pytest.fixture
def other(make_cache: MakeCache) -> NatsCache:
    """The same bucket through a connection of its own."""
    return make_cache(OPTIONS={"NAME": "another"})


@pytest.fixture
def following(cache: NatsCache) -> Iterator[Following]:
    made = Following(cache)
    yield made
    made.stop()


@pytest.fixture
def patient(cache: NatsCache) -> Iterator[Following]:
    """One that a machine that stands still for a second does not end."""
    made = Following(cache, within=3)
    yield made
    made.stop()


def test_changes_are_told_in_order_with_their_revisions(
    following: Following, other: NatsCache
) -> None:
    other.set_many({f"key-{number}": number for number in range(500)})
    other.delete("key-3")
    revision = other.get_with_revision("key-499")[1]
    following.wait_for(lambda: len(following.recorder.revisions) == 501)
    assert following.recorder.revisions == list(range(revision - 499, revision + 2))
    assert following.watcher.state == "whole"


def test_its_consumer_costs_the_server_little_and_goes_with_it(
    cache: NatsCache, following: Following
) -> None:
    stream = cache._bucket.config.stream
    config = api(cache, f"CONSUMER.INFO.{stream}.{following.consumer}")["config"]
    assert config["headers_only"]
    assert config["mem_storage"]
    assert config["ack_policy"] == "none"
    assert config["num_replicas"] == 1
    assert config["inactive_threshold"] <= 10 * NANOSECONDS
    following.watcher.stop()
    following.wait_for(lambda: api(cache, f"CONSUMER.NAMES.{stream}")["total"] == 0)


def test_it_is_proven_current_again_and_again(patient: Following) -> None:
    proofs = patient.recorder.proofs
    patient.wait_for(lambda: len(proofs) > 5)
    assert proofs == sorted(proofs)
    # Never later than what has been asked, and answered.
    assert proofs[-1] <= time.monotonic()
    assert patient.recorder.lives == 1


def test_a_burst_is_told_whole(patient: Following, other: NatsCache) -> None:
    """The server waits for an answer within it, and again and again."""
    for _ in range(5):
        other.set_many({f"key-{number}": number for number in range(4000)})
    patient.wait_for(lambda: len(patient.recorder.revisions) == 20_000, 30)
    assert patient.recorder.lives == 1
    revisions = patient.recorder.revisions
    assert revisions == list(range(revisions[0], revisions[0] + 20_000))


def test_a_subject_that_is_no_text_is_a_change_like_others(
    server: NatsServer, cache: NatsCache, patient: Following, caplog: pytest.LogCaptureFixture
) -> None:
    publish(server, b"$KV.%b.=.1.\xff" % cache._bucket.config.name.encode())
    cache.set("key", 1)
    patient.wait_for(lambda: len(patient.recorder.revisions) == 2)
    assert patient.recorder.lives == 1
    assert not [each for each in caplog.messages if "could not handle" in each]


# What ends it --------------------------------------------------------------------------------


class Loss:
    """What is dropped on its way from the server: so many changes, and heartbeats if need be."""

    def __init__(self, bucket: str, *, changes: int = 1, heartbeats: bool = False) -> None:
        self.left = changes
        self.lost = 0
        self._change = f"HMSG $KV.{bucket}.".encode()
        self._heartbeats = heartbeats

    def __call__(self, data: bytes) -> bool:
        if self._change in data and self.left:
            self.left -= 1
            self.lost += 1
            return True
        return self._heartbeats and b"Idle Heartbeat" in data


@pytest.fixture
def proxy(server: NatsServer) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running
        bridge.close()


@pytest.mark.parametrize(
    ("within", "heartbeats"),
    [
        pytest.param(5, True, id="a heartbeat tells"),
        pytest.param(20, False, id="the next change tells"),
    ],
)
def test_a_change_that_is_lost_while_the_connection_is_not(
    within: float, heartbeats: bool, proxy: Proxy, cache: NatsCache, make_cache: MakeCache
) -> None:
    cache.set("key", 1)
    following = Following(make_cache(location=proxy.url), within)
    loss = Loss(cache._bucket.config.name, heartbeats=not heartbeats)
    proxy.lose = loss
    cache.set("key", 2)
    following.wait_for(lambda: loss.lost == 1)
    if not heartbeats:
        assert following.recorder.lives == 1
        cache.set("key", 3)
    following.wait_for(lambda: following.recorder.lives == 2)
    assert following.recorder.events == ["opened", "shut", "opened"]
    assert proxy.connections == 1
    cache.set("key", 4)
    following.wait_for(lambda: len(following.recorder.revisions) == 1)


def test_a_replica_that_gets_no_further_is_not_listened_to_for_ever(
    cache: NatsCache, other: NatsCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that is paused is as one that is cut off: alive, and with nothing to tell."""
    cache.set("key", 1)
    following = Following(cache)
    monkeypatch.setattr(cache._bucket, "replicated", True)
    stream = cache._bucket.config.stream
    until = {"pause_until": "2999-01-01T00:00:00Z"}
    assert api(cache, f"CONSUMER.PAUSE.{stream}.{following.consumer}", until)["paused"]
    states = []

    def noted(error: NatsError) -> str:
        states.append(explain(error))
        return states[-1]

    monkeypatch.setattr(watch, "explain", noted)
    other.set("key", 2)
    following.wait_for(lambda: following.recorder.lives == 2)
    assert "The feed is told of by a replica that gets no further" in states
    following.stop()


def heartbeat_ahead(server: NatsServer, following: Following) -> None:
    header = "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 99\r\nNats-Last-Stream: 99\r\n"
    forge(server, following.control, header=header)


def consumer_deleted(server: NatsServer, following: Following) -> None:
    cache = NatsCache(server.url, {"OPTIONS": {"TOKEN": server.token}})
    stream = following.watcher._bucket.config.stream
    assert api(cache, f"CONSUMER.DELETE.{stream}.{following.consumer}")["success"]


def stream_deleted(server: NatsServer, following: Following) -> None:
    cache = NatsCache(server.url, {"OPTIONS": {"TOKEN": server.token}})
    assert api(cache, f"STREAM.DELETE.{following.watcher._bucket.config.stream}")["success"]


@pytest.mark.parametrize("trouble", [heartbeat_ahead, consumer_deleted, stream_deleted])
def test_it_is_opened_anew_after(
    server: NatsServer,
    following: Following,
    other: NatsCache,
    trouble: Callable[[NatsServer, Following], None],
) -> None:
    other.set("key", 1)
    following.wait_for(lambda: len(following.recorder.revisions) == 1)
    first = following.consumer

    trouble(server, following)

    following.wait_for(lambda: following.recorder.lives == 2)
    assert following.recorder.events[1:] == [following.recorder.revisions[0], "shut", "opened"]
    assert following.consumer != first
    other.set("key", 2)
    following.wait_for(lambda: len(following.recorder.revisions) == 2)
    proofs = len(following.recorder.proofs)
    following.wait_for(lambda: len(following.recorder.proofs) > proofs)
    assert following.watcher.state == "whole"


def test_a_heartbeat_of_the_present_is_none_of_these(
    server: NatsServer, patient: Following
) -> None:
    header = "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 0\r\n"
    forge(server, patient.control, header=header)
    proofs = len(patient.recorder.proofs)
    patient.wait_for(lambda: len(patient.recorder.proofs) > proofs + 2)
    assert patient.recorder.events == ["opened"]


def test_a_server_that_has_stalled_is_answered(server: NatsServer, following: Following) -> None:
    """As when the answer to its question was lost."""
    subject = f"stalled.{secrets.token_hex(4)}"
    header = "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 0\r\n"
    header += f"Nats-Consumer-Stalled: {subject}\r\n"
    with listening(server, subject) as sock:
        forge(server, following.control, header=header)
        assert sock.recv(4096).startswith(f"MSG {subject} 1 ".encode())


@pytest.fixture
def unanswered() -> Iterator[NatsServer]:
    """A server whose users may not answer it when it asks how far they have read."""
    user = 'user: web, password: secret, permissions: { publish: { deny: ["$JS.FC.>"] } }'
    with NatsServer(token="", config=f"authorization {{ users: [{{ {user} }}] }}") as server:
        yield server
        bridge.close()


def of_a_user(server: NatsServer, name: str) -> NatsCache:
    return NatsCache(server.url, {"OPTIONS": {"USER": "web", "PASSWORD": "secret", "NAME": name}})


@pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
def test_what_the_server_holds_back_is_not_taken_for_told(unanswered: NatsServer) -> None:
    following = Following(of_a_user(unanswered, "reader"), within=5)
    recorder = following.recorder
    other = of_a_user(unanswered, "writer")
    number = 0
    told = True
    while told:
        number += 1
        recorder.heard.clear()
        before = time.monotonic()
        other.set(f"{'long' * 220}{number}", number)
        told = recorder.heard.wait(2)
    assert len(recorder.revisions) == number - 1  # one after the other: none was left to be told
    assert recorder.lives == 1
    assert recorder.proofs[-1] <= before
    following.wait_for(lambda: recorder.lives == 2)
    assert recorder.proofs[-1] <= before or recorder.events[-1] == "opened"


def test_a_feed_that_the_server_holds_up_is_opened_anew(unanswered: NatsServer) -> None:
    following = Following(of_a_user(unanswered, "reader"))
    other = of_a_user(unanswered, "writer")
    for _ in range(5):
        other.set_many({f"key-{number}": number for number in range(4000)})
    following.wait_for(lambda: following.recorder.lives == 2)
    assert 0 < len(following.recorder.revisions) < 20_000
    told = len(following.recorder.revisions)
    other.set("key", 1)
    following.wait_for(lambda: len(following.recorder.revisions) > told)


def test_it_ends_with_the_connection(proxy: Proxy, cache: NatsCache, make_cache: MakeCache) -> None:
    cache.set("key", 1)
    following = Following(make_cache(location=proxy.url))
    proxy.refusing = True
    proxy.cut()
    following.wait_for(lambda: following.recorder.events == ["opened", "shut"])
    following.wait_for(lambda: following.watcher.state == "The connection was lost")
    proofs = len(following.recorder.proofs)
    proxy.refusing = False
    following.wait_for(lambda: len(following.recorder.proofs) > proofs)
    assert following.recorder.events == ["opened", "shut", "opened"]


def test_nothing_is_proven_by_a_server_that_hangs(
    cache: NatsCache, make_cache: MakeCache, proxy: Proxy
) -> None:
    """Heartbeats that are still in the socket are as old as the changes behind them."""
    cache.set("key", 1)
    following = Following(make_cache(location=proxy.url))
    proxy.freeze()
    frozen = time.monotonic()
    cache.set("key", 2)
    following.wait_for(lambda: time.monotonic() > frozen + 0.5)
    assert following.recorder.proofs[-1] <= frozen
    proxy.thaw()
    following.wait_for(lambda: following.recorder.proofs[-1] > frozen)
    assert len(following.recorder.revisions) == 1 or following.recorder.lives == 2
