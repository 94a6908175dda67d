"""What a process knows of a stream that others change while it is used."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.client.counters.stream import CounterStream
from django_nats.client.kv.bucket import Bucket
from django_nats.client.protocol.steps import Request, Steps
from django_nats.client.streams import facts
from django_nats.devserver import NatsServer
from django_nats.exceptions import BucketMismatch, CounterMismatch, NatsError, ValueTooLarge
from tests.client.conftest import Clock
from tests.conftest import PATIENT, MakeCache, api
from tests.counters.conftest import Configure, configure
from tests.servers import eventually
from tests.support.answers import Session, document, finish, stored, stream_document
from tests.support.following import Following
from tests.support.reloading import LOGIN, Reloading, account

__all__ = ["configure"]

LARGE = "x" * 20_000


def update(cache: NatsCache, **change: Any) -> None:
    stream = cache.bucket.config.stream
    config = api(cache, f"STREAM.INFO.{stream}")["config"]
    answer = api(cache, f"STREAM.UPDATE.{stream}", {**config, **change})
    assert "error" not in answer, answer


def raised(function: Any, *arguments: object) -> NatsError | None:
    """Return the error that a call raises."""
    try:
        function(*arguments)
    except NatsError as error:
        return error
    return None


@pytest.fixture
def never_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only the server's notice have a process look at its streams again."""
    monkeypatch.setattr(facts, "FACTS_S", 3600.0)
    monkeypatch.setattr("django_nats.client.streams.clock.REFRESH_S", 3600.0)
    monkeypatch.setattr("django_nats.client.streams.clock._RETRY_S", 3600.0)


@pytest.fixture(params=["told", "not told"])
def cache(
    request: Any, monkeypatch: pytest.MonkeyPatch, server: NatsServer, make_cache: MakeCache
) -> Iterator[NatsCache]:
    """Yield a cache whose process hears of changes, or looks for them after a short time."""
    if request.param == "told":
        request.getfixturevalue("never_asked_again")
        yield make_cache()
        return
    monkeypatch.setattr(facts, "FACTS_S", 0.1)
    with Reloading(config=account(permissions=DENIED), token="") as denying:
        yield NatsCache(denying.url, {"OPTIONS": {**PATIENT, **LOGIN}})
        process.close()


DENIED = 'subscribe: { deny: "$JS.EVENT.>" }'


@pytest.mark.parametrize(
    ("before", "after", "error"),
    [
        ({}, {"max_msg_size": 10_000}, ValueTooLarge),
        ({}, {"no_ack": True}, BucketMismatch),
        ({}, {"sealed": True}, BucketMismatch),
        ({}, {"allow_direct": False}, BucketMismatch),
        ({}, {"retention": "interest"}, BucketMismatch),
        ({}, {"subject_transform": {"src": ">", "dest": "moved.>"}}, BucketMismatch),
    ],
    ids=str,
)
def test_a_change_of_the_stream_is_noticed(
    cache: NatsCache, before: dict[str, Any], after: dict[str, Any], error: type[NatsError]
) -> None:
    cache.set("key", LARGE)
    connection = cache.session.connection
    update(cache, **after)
    (field,) = after
    # A write would wait for an answer if it were sent before the change is noticed.
    call = (cache.set, "key", LARGE) if error is ValueTooLarge else (cache.get, "key")
    assert eventually(lambda: isinstance(raised(*call), error))
    if error is BucketMismatch:
        for method in ("get", "delete"):
            assert field in str(raised(getattr(cache, method), "key"))
        assert field in str(raised(cache.set, "key", 1))
    assert cache.session.connection is connection


def test_a_raised_limit_and_a_mended_stream_are_noticed(cache: NatsCache) -> None:
    cache.set("key", "value")
    update(cache, max_msg_size=10_000, no_ack=True)
    assert eventually(lambda: isinstance(raised(cache.get, "key"), BucketMismatch))
    update(cache, max_msg_size=10_000, no_ack=False)
    assert isinstance(raised(cache.set, "key", LARGE), ValueTooLarge)  # mended, at once
    update(cache, max_msg_size=30_000)
    assert eventually(lambda: raised(cache.set, "key", LARGE) is None)
    assert cache.get("key") == LARGE


@pytest.mark.usefixtures("never_asked_again")
def test_a_change_of_a_counter_stream_is_noticed(configure: Configure) -> None:
    counters = configure()
    counters.incr("hits")
    stream = counters.stream
    name = stream.config.stream

    def ask(subject: str, payload: object = None) -> Any:
        return api(Asking(counters), f"STREAM.{subject}.{name}", payload)  # type: ignore[arg-type]

    changed = {**ask("INFO")["config"], "no_ack": True}
    assert "error" not in ask("UPDATE", changed)
    assert eventually(lambda: isinstance(raised(counters.get_many, ["hits"]), CounterMismatch))
    assert isinstance(raised(counters.incr, "hits"), CounterMismatch)
    assert "error" not in ask("UPDATE", {**changed, "no_ack": False})
    assert counters.incr("hits") >= 2


class Asking:
    """Counters in the place of the cache that ``api`` asks for."""

    def __init__(self, counters: Any) -> None:
        self.bucket, self.session = counters.stream, counters.session


@contextmanager
def denying(permissions: str = DENIED) -> Iterator[NatsCache]:
    with Reloading(config=account(permissions=permissions), token="") as server:
        yield NatsCache(server.url, {"OPTIONS": {**PATIENT, **LOGIN}})
        process.close()


def test_a_denied_subscription_costs_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    with denying() as cache, caplog.at_level(logging.DEBUG, "django_nats"):
        following = Following(cache, within=3600.0)
        cache.set("key", 1)
        connection = cache.session.connection
        assert eventually(lambda: cache.bucket.stream.opening._facts.follow is None)
        assert cache.get("key") == 1
        assert list(cache.iter_keys("*")) == ["key"]
        following.wait_for(following.recorder.heard.is_set)
        assert following.recorder.lives == 1
        following.stop()
        assert cache.session.connection is connection
        assert [each for each in caplog.messages if "refused" in each] == []


# The clock -----------------------------------------------------------------------------------


def asks_first(steps: Steps[Any]) -> bool:
    """Return True if an operation looks at the stream before anything else."""
    effect = next(steps)
    steps.close()
    return isinstance(effect, Request) and effect.subject.startswith(b"$JS.API.STREAM.INFO.")


def bucket_at(clock: Clock) -> Bucket:
    from django_nats.client.kv.config import BucketConfig

    bucket = Bucket(BucketConfig("b"), Session())
    finish(bucket.stream.opening.open(), document(stream_document(bucket.config)))
    bucket.clock.due = float("inf")
    return bucket


def counters_at(clock: Clock) -> CounterStream:
    from django_nats.client.counters.config import CounterConfig

    stream = CounterStream(CounterConfig("b", "b"), Session())
    finish(stream.stream.opening.open(), document(stream_document(stream.config)))
    return stream


OPERATIONS: dict[str, Any] = {
    "get": lambda clock: bucket_at(clock).get("k"),
    "get_many": lambda clock: bucket_at(clock).get_many(["k"]),
    "get_payload": lambda clock: bucket_at(clock).get_payload("k"),
    "delete": lambda clock: bucket_at(clock).delete("k"),
    "clear": lambda clock: bucket_at(clock).clear(),
    "value": lambda clock: counters_at(clock).value("k"),
    "incr": lambda clock: counters_at(clock).incr("k", 1),
    "reset": lambda clock: counters_at(clock).reset("k"),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_stream_is_looked_at_again_after_a_minute(clock: Clock, operation: str) -> None:
    for passed, asks in ((59.0, False), (61.0, True)):
        steps = OPERATIONS[operation](clock)
        clock.now += passed
        assert asks_first(steps) is asks


def test_changes_in_a_row_are_looked_at_once_a_second(clock: Clock) -> None:
    bucket = bucket_at(clock)
    bucket.stream.opening._facts._note_update(stored(1))
    assert not asks_first(bucket.get("k"))
    clock.now += 1.1
    assert asks_first(bucket.get("k"))


def test_a_notice_that_comes_before_the_answer_is_not_lost(clock: Clock) -> None:
    bucket = bucket_at(clock)
    clock.now += 61
    steps = bucket.get("k")
    next(steps)
    bucket.stream.opening._facts._note_update(stored(1))
    steps.send(document(stream_document(bucket.config)))
    bucket.clock.due = float("inf")
    clock.now += 1.1
    assert asks_first(bucket.get("k"))
