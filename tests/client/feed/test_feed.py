"""A feed, which ends at any sign that it may have missed a change and is then reopened."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.client.feed import watcher
from django_nats.client.feed.feed import Feed
from django_nats.client.protocol.steps import Lane, Request
from django_nats.client.protocol.wire import Reply
from django_nats.client.streams.config import NANOSECONDS
from django_nats.client.transport import shared_socket
from django_nats.client.transport.driver_errors import explain
from django_nats.client.transport.waiter import Waiter
from django_nats.devserver import NatsServer
from django_nats.exceptions import NatsError
from tests.conftest import PATIENT, MakeCache, api
from tests.support import answers
from tests.support.following import Following, Recorder, forge, listening, publish
from tests.support.interrupting import Interruption
from tests.support.logins import authorization
from tests.support.proxy import Proxy


@pytest.fixture
def other(make_cache: MakeCache) -> NatsCache:
    """Return a cache on the same bucket with its own connection."""
    return make_cache(OPTIONS={"NAME": "another"})


@pytest.fixture
def following(cache: NatsCache) -> Iterator[Following]:
    made = Following(cache)
    yield made
    made.stop()


@pytest.fixture
def patient(cache: NatsCache) -> Iterator[Following]:
    """Open a feed that does not break if the machine stalls for a second."""
    made = Following(cache, within=6)
    yield made
    made.stop()


def test_changes_are_reported_in_order_with_their_revisions(
    following: Following, other: NatsCache
) -> None:
    other.set_many({f"key-{number}": number for number in range(500)})
    other.delete("key-3")
    revision = other.get_with_revision("key-499")[1]
    following.wait_for(lambda: len(following.recorder.revisions) == 501)
    assert following.recorder.revisions == list(range(revision - 499, revision + 2))
    assert following.watcher.state == "whole"


def test_the_consumer_of_a_feed_is_ephemeral_and_in_memory(
    cache: NatsCache, following: Following
) -> None:
    stream = cache.bucket.config.stream
    config = api(cache, f"CONSUMER.INFO.{stream}.{following.consumer}")["config"]
    assert config["headers_only"]
    assert config["mem_storage"]
    assert config["ack_policy"] == "none"
    assert config["num_replicas"] == 1
    assert config["inactive_threshold"] <= 10 * NANOSECONDS
    following.watcher.stop()
    following.wait_for(lambda: api(cache, f"CONSUMER.NAMES.{stream}")["total"] == 0)


def test_a_feed_is_proven_current_repeatedly(patient: Following) -> None:
    proofs = patient.recorder.proofs
    patient.wait_for(lambda: len(proofs) > 5)
    assert proofs == sorted(proofs)
    # Never later than the last question that was answered.
    assert proofs[-1] <= time.monotonic()
    assert patient.recorder.lives == 1


def store_many(cache: NatsCache) -> None:
    """Store 20,000 values, few at a time: a slow server answers pings between them."""
    for first in range(0, 20_000, 500):
        cache.set_many({f"key-{number % 4000}": number for number in range(first, first + 500)})


def test_a_burst_is_reported_completely(patient: Following, other: NatsCache) -> None:
    """The server waits for a flow control answer many times within the burst."""
    store_many(other)
    patient.wait_for(lambda: len(patient.recorder.revisions) == 20_000)
    assert patient.recorder.lives == 1
    revisions = patient.recorder.revisions
    assert revisions == list(range(revisions[0], revisions[0] + 20_000))


def test_a_subject_that_is_not_utf_8_is_a_change_like_others(
    server: NatsServer, cache: NatsCache, patient: Following, caplog: pytest.LogCaptureFixture
) -> None:
    publish(server, b"$KV.%b.=.1.\xff" % cache.bucket.config.name.encode())
    cache.set("key", 1)
    patient.wait_for(lambda: len(patient.recorder.revisions) == 2)
    assert patient.recorder.lives == 1
    assert not [each for each in caplog.messages if "could not handle" in each]


# The end of a feed ---------------------------------------------------------------------------


class Loss:
    """A filter for the proxy that drops a number of changes, and heartbeats if requested."""

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


@pytest.mark.skipif(not shared_socket.AVAILABLE, reason="only the loop reads without epoll")
def test_an_interrupted_reader_ends_the_feed(
    cache: NatsCache, patient: Following, other: NatsCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The feed has counted the change by then, so that no later message would show the loss."""
    report = patient.recorder.changed

    def interrupted(*change: Any) -> None:
        patient.recorder.changed = report  # type: ignore[method-assign]
        raise Interruption

    connection = cache.session.connection
    assert connection is not None
    assert connection._shared is not None
    waiter = Waiter([Request(Lane("a lane", 60.0), "subject")], lambda: None)
    waiter.thread = threading.get_ident()
    patient.recorder.changed = interrupted  # type: ignore[method-assign]
    monkeypatch.setattr(shared_socket, "READ_PATIENCE_S", 60.0)
    patient.wait_for(lambda: connection._shared.begin_reading(waiter))
    try:
        other.set("key", 1)
        with pytest.raises(Interruption):
            connection._shared.read_until(waiter, lambda: False)
    finally:
        connection._shared.end_reading(waiter)
    patient.wait_for(lambda: patient.recorder.lives == 2)
    assert "shut" in patient.recorder.events
    assert not connection.lost.done()


@pytest.fixture
def proxy(server: NatsServer) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running
        process.close()


@pytest.mark.parametrize(
    ("within", "heartbeats"),
    [
        pytest.param(5, True, id="a heartbeat tells"),
        pytest.param(20, False, id="the next change tells"),
    ],
)
def test_a_lost_change_is_noticed_on_a_working_connection(
    within: float, heartbeats: bool, proxy: Proxy, cache: NatsCache, make_cache: MakeCache
) -> None:
    cache.set("key", 1)
    following = Following(make_cache(location=proxy.url), within)
    loss = Loss(cache.bucket.config.name, heartbeats=not heartbeats)
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


def test_a_replica_that_does_not_catch_up_ends_the_feed(
    cache: NatsCache, other: NatsCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A paused consumer stands for a replica that is cut off: it sends heartbeats only."""
    cache.set("key", 1)
    following = Following(cache)
    assert following.recorder.lives == 1
    monkeypatch.setattr(cache.bucket.stream.opening, "replicated", True)
    stream = cache.bucket.config.stream
    until = {"pause_until": "2999-01-01T00:00:00Z"}
    assert api(cache, f"CONSUMER.PAUSE.{stream}.{following.consumer}", until)["paused"]
    states = []

    def noted(error: NatsError) -> str:
        states.append(explain(error))
        return states[-1]

    monkeypatch.setattr(watcher, "explain", noted)
    other.set("key", 2)
    following.wait_for(lambda: following.recorder.lives == 2)
    assert "The replica that sends the feed does not catch up with its stream" in states
    following.stop()


def heartbeat_ahead(server: NatsServer, following: Following) -> None:
    header = "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 99\r\nNats-Last-Stream: 99\r\n"
    forge(server, following.control, header=header)


def heartbeat_without_a_number(server: NatsServer, following: Following) -> None:
    header = "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: x\r\n"
    forge(server, following.control, header=header)


def heartbeat_with_a_long_number(server: NatsServer, following: Following) -> None:
    header = f"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Stream: {'9' * 3000}\r\n"
    forge(server, following.control, header=header)


def stalled_on_what_is_no_subject(server: NatsServer, following: Following) -> None:
    header = "NATS/1.0 100 Idle Heartbeat\r\nNats-Consumer-Stalled: a b\r\n"
    forge(server, following.control, header=header)


def consumer_deleted(server: NatsServer, following: Following) -> None:
    cache = NatsCache(server.url, {"OPTIONS": {"TOKEN": server.token, **PATIENT}})
    stream = following.watcher._bucket.config.stream
    assert api(cache, f"CONSUMER.DELETE.{stream}.{following.consumer}")["success"]


def stream_deleted(server: NatsServer, following: Following) -> None:
    cache = NatsCache(server.url, {"OPTIONS": {"TOKEN": server.token, **PATIENT}})
    assert api(cache, f"STREAM.DELETE.{following.watcher._bucket.config.stream}")["success"]


@pytest.mark.parametrize(
    "trouble",
    [
        heartbeat_ahead,
        heartbeat_without_a_number,
        heartbeat_with_a_long_number,
        stalled_on_what_is_no_subject,
        consumer_deleted,
        stream_deleted,
    ],
)
def test_a_feed_is_reopened_after(
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


class Link:
    """The part of a connection that a feed uses, without a server."""

    def __init__(self) -> None:
        self.posted: list[bytes] = []

    def listen(self, *functions: Callable[..., object]) -> tuple[bytes, str]:
        return b"2", "_INBOX.x.token.feed"

    def post(self, subject: bytes) -> None:
        self.posted.append(subject)


def delivered(
    feed: Feed, *, subject: bytes = b"$KV.b.=.1.k", by: str = "", number: object = 1
) -> Reply:
    place = f"$JS.ACK.KV_b.{by or feed._name}.1.7.{number}.1700000000000000000.0"
    return Reply(b"NATS/1.0\r\n\r\n", b"", place.encode(), subject)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"subject": b"$KV.another.key"}, "a subject that it did not ask for"),
        ({"by": "keys-of-another"}, "not one of this consumer's"),
        ({"number": "9" * 5000}, "not one of this consumer's"),
        ({"number": "-1"}, "not one of this consumer's"),
        ({"number": ""}, "not one of this consumer's"),
        ({"number": 2}, "Changes 1 to 1 of the feed are missing"),
        (None, "not one of this consumer's"),
    ],
    ids=["subject", "consumer", "long", "negative", "empty", "gap", "too large"],
)
async def test_an_unexpected_message_breaks_the_feed(
    odd: dict[str, Any] | None, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not skipped, since a change may have been missed."""
    recorder = Recorder()
    bucket = answers.opened()
    feed = Feed(Link(), bucket, ["$KV.b.=.1.>"], recorder, 1.0, None)  # type: ignore[arg-type]
    recorder.opened(0)
    feed._receive(delivered(feed) if odd is None else delivered(feed, **odd))
    if odd is None:
        feed._receive(Reply(b"", b"", b"", b"$KV.b.=.1.large"))
    assert words in feed._reason
    assert recorder.events == ["opened", *([7] if odd is None else []), "shut"]
    feed._receive(delivered(feed))
    assert recorder.events[-1] == "shut"
    assert caplog.records == []


def test_a_current_heartbeat_does_not_break_the_feed(
    server: NatsServer, patient: Following
) -> None:
    header = "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 0\r\n"
    forge(server, patient.control, header=header)
    proofs = len(patient.recorder.proofs)
    patient.wait_for(lambda: len(patient.recorder.proofs) > proofs + 2)
    assert patient.recorder.events == ["opened"]


def test_a_stalled_server_is_answered(server: NatsServer, following: Following) -> None:
    """The server stalls as it would if the answer to its question had been lost."""
    subject = f"stalled.{secrets.token_hex(4)}"
    header = "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 0\r\n"
    header += f"Nats-Consumer-Stalled: {subject}\r\n"
    with listening(server, subject) as sock:
        forge(server, following.control, header=header)
        assert sock.recv(4096).startswith(f"MSG {subject} 1 ".encode())


@pytest.fixture
def unanswered() -> Iterator[NatsServer]:
    """Start a server whose users may not answer its flow control messages."""
    user = 'user: web, password: secret, permissions: { publish: { deny: ["$JS.FC.>"] } }'
    with NatsServer(token="", config=authorization(f"users: [{{ {user} }}]")) as server:
        yield server
        process.close()


def of_a_user(server: NatsServer, name: str) -> NatsCache:
    options = {"USER": "web", "PASSWORD": "secret", "NAME": name}
    return NatsCache(server.url, {"OPTIONS": {**options, **PATIENT}})


class Lives(Recorder):
    """A recorder that also records how many proofs there were when each feed was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.began: list[int] = []

    def opened(self, position: int) -> None:
        self.began.append(len(self.proofs))
        super().opened(position)


@pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
def test_changes_that_the_server_holds_back_do_not_count_as_reported(
    unanswered: NatsServer,
) -> None:
    recorder = Lives()
    following = Following(of_a_user(unanswered, "reader"), within=3, recorder=recorder)
    other = of_a_user(unanswered, "writer")
    written: list[float] = []
    while recorder.lives == 1:
        recorder.heard.clear()
        written.append(time.monotonic())
        other.set(f"{'long' * 220}{len(written)}", 1)
        recorder.heard.wait(0.05)
    following.stop()
    reported = recorder.events.index("shut") - 1
    assert 0 < reported < len(written)
    assert recorder.proofs[recorder.began[1] - 1] <= written[reported]


def test_a_stalled_feed_is_reopened(unanswered: NatsServer) -> None:
    following = Following(of_a_user(unanswered, "reader"))
    other = of_a_user(unanswered, "writer")
    store_many(other)
    following.wait_for(lambda: following.recorder.lives >= 2)
    assert 0 < len(following.recorder.revisions) < 20_000
    reported = len(following.recorder.revisions)

    def is_reported() -> bool:
        other.set("key", 1)  # more than once: the new feed may have stalled as well
        return len(following.recorder.revisions) > reported

    following.wait_for(is_reported)


def test_a_feed_ends_with_the_connection(
    proxy: Proxy, cache: NatsCache, make_cache: MakeCache
) -> None:
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


def test_a_hanging_server_proves_nothing(
    cache: NatsCache, make_cache: MakeCache, proxy: Proxy
) -> None:
    """Heartbeats in the socket may be as old as the changes behind them."""
    cache.set("key", 1)
    following = Following(make_cache(location=proxy.url), within=0.4)
    proxy.freeze()
    frozen = time.monotonic()
    cache.set("key", 2)
    following.wait_for(lambda: time.monotonic() > frozen + 0.5)
    assert following.recorder.proofs[-1] <= frozen
    proxy.thaw()
    following.wait_for(lambda: following.recorder.proofs[-1] > frozen)
    assert len(following.recorder.revisions) == 1 or following.recorder.lives >= 2
