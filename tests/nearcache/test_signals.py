"""The signal key_changed, sent in processes that read from a near cache."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import pytest

from django_nats.cache import NatsCache
from django_nats.client import drivers
from django_nats.devserver import NatsServer
from django_nats.nearcache import announce
from django_nats.nearcache.follow import Follower
from django_nats.signals import key_changed
from tests.conftest import MakeCache, api
from tests.nearcache.conftest import (
    PATIENT_NEAR,
    changes_delivered_to,
    follow,
    hashed,
    near_of,
    soon,
)
from tests.support.process import run_in_processes
from tests.support.proxy import Proxy
from tests.support.scripts import run_script


class Event(NamedTuple):
    key: str | None
    version: int | str | None
    deleted: bool
    revision: int


GAP = Event(None, None, True, 0)


class Receiver:
    """A signal receiver that records what it is sent."""

    def __init__(self) -> None:
        self._events: SimpleQueue[Event] = SimpleQueue()
        self.threads: set[str] = set()
        self.aliases: set[str] = set()

    def __call__(self, sender: object, alias: str, signal: object, **event: Any) -> None:
        assert sender is Follower
        self.threads.add(threading.current_thread().name)
        self.aliases.add(alias)
        self._events.put(Event(**event))

    def next(self) -> Event:
        return self._events.get(timeout=60)

    def up_to(self, key: str) -> list[Event]:
        """Return all events before that of a key."""
        events: list[Event] = []
        while (event := self.next()).key != key:
            events.append(event)
        return events


def wait_until_all_is_sent() -> None:
    sent = threading.Event()
    announce.announcer.put(sent.set, sent.set)
    assert sent.wait(30)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    wait_until_all_is_sent()  # the process's thread may still be sending for another test
    receiver = Receiver()
    key_changed.connect(receiver)
    yield receiver
    key_changed.disconnect(receiver)


@pytest.fixture
def cache(receiver: Receiver, make_cache: MakeCache) -> NatsCache:
    """Return a cache with a near cache whose changes are sent."""
    return following_cache(receiver, make_cache)


def following_cache(
    receiver: Receiver, make_cache: MakeCache, members: dict[str, Any] | None = None, **params: Any
) -> NatsCache:
    options = {"NEAR_CACHE": {**PATIENT_NEAR, **(members or {})}, **params.pop("OPTIONS", {})}
    cache = make_cache(OPTIONS=options, **params)
    follow(cache)
    # Opening the feed sends a gap, because earlier changes are unknown.
    assert receiver.next() == GAP
    return cache


# Changes -------------------------------------------------------------------------------------


def test_sets_and_deletes_are_sent_with_their_revisions(
    receiver: Receiver, cache: NatsCache
) -> None:
    cache.set("a:b", 1)
    _, revision = cache.get_with_revision("a:b")
    assert receiver.next() == Event("a:b", 1, deleted=False, revision=revision)
    cache.touch("a:b", 100)
    assert receiver.next() == Event("a:b", 1, deleted=False, revision=revision + 1)
    cache.delete("a:b")
    assert receiver.next() == Event("a:b", 1, deleted=True, revision=revision + 2)
    assert receiver.threads == {"django-nats-signals"}


def test_changes_of_every_version_are_sent(receiver: Receiver, cache: NatsCache) -> None:
    cache.set("key", 1, version=7)
    cache.incr_version("key", version=7)
    assert [receiver.next()[:3] for _ in range(3)] == [
        ("key", 7, False),
        ("key", 8, False),
        ("key", 7, True),
    ]


def test_a_version_may_be_text(receiver: Receiver, make_cache: MakeCache) -> None:
    cache = following_cache(receiver, make_cache, VERSION="v2")
    cache.set("key", 1)
    assert receiver.next()[:2] == ("key", "v2")


def test_changes_by_another_process_are_sent(
    receiver: Receiver, cache: NatsCache, server: NatsServer
) -> None:
    run_in_processes(server, cache, "cache.set_many({'a': 1, 'b': 2})\ncache.delete('a')")
    events = [receiver.next() for _ in range(3)]
    assert [(event.key, event.deleted) for event in events] == [
        ("a", False),
        ("b", False),
        ("a", True),
    ]


def test_only_keys_of_the_patterns_and_the_prefix_are_sent(
    receiver: Receiver, make_cache: MakeCache
) -> None:
    cache = following_cache(receiver, make_cache, {"KEYS": ["flags:*", "f?"]}, KEY_PREFIX="site:a")
    unprefixed = make_cache()
    unprefixed.set("flags:x", 1)
    for key in ("flags", "other:flags:x", "fxx", "flags:a", "fx"):
        cache.set(key, 1)
    assert [receiver.next().key, receiver.next().key] == ["flags:a", "fx"]


@pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
@pytest.mark.parametrize("key", ["x" * 3000, "größe: *?", "a b", ":", "a.b"])
def test_keys_are_sent_as_the_user_gave_them(
    receiver: Receiver, cache: NatsCache, key: str
) -> None:
    cache.set(key, 1)
    assert receiver.next()[:3] == (key, 1, False)
    cache.delete(key)
    assert receiver.next()[:3] == (key, 1, True)


def test_made_keys_are_sent_with_a_custom_key_function(
    receiver: Receiver, make_cache: MakeCache
) -> None:
    cache = following_cache(receiver, make_cache, {"KEYS": ["flags:*"]}, KEY_FUNCTION=hashed)
    cache.set("key", 1)
    assert receiver.next()[:3] == (cache.make_key("key"), None, False)


def test_a_clear_is_sent_as_a_change_of_every_key(receiver: Receiver, cache: NatsCache) -> None:
    cache.set("key", 1)
    assert receiver.next().key == "key"
    cache.clear()
    event = receiver.next()
    assert event[:3] == (None, None, True)
    assert event.revision > 0


def test_messages_of_other_clients_that_are_not_keys_are_ignored(
    receiver: Receiver, cache: NatsCache
) -> None:
    stray = f"$KV.{cache.bucket.config.name}.=.1.a=zz"
    drivers.run(cache.session, publish(cache, stray))
    cache.set("key", 1)
    assert receiver.next().key == "key"


def publish(cache: NatsCache, subject: str) -> Any:
    from django_nats.client.protocol.steps import Request

    return (yield Request(cache.bucket.stream.lanes.writes, subject, b"x"))


def test_changes_are_sent_for_every_alias(receiver: Receiver, make_cache: MakeCache) -> None:
    one = make_cache(OPTIONS={"NEAR_CACHE": PATIENT_NEAR})
    near_of(one).belongs_to("second")
    follow(one)
    receiver.next()
    one.set("key", 1)
    assert [receiver.next().key, receiver.next().key][1] == "key"
    assert receiver.aliases == {one.alias, "second"}


# Gaps ----------------------------------------------------------------------------------------


def test_a_gap_is_sent_after_a_lost_connection(
    receiver: Receiver, make_cache: MakeCache, proxy: Proxy
) -> None:
    other = make_cache()
    other.set("key", "old")
    far = following_cache(receiver, make_cache, location=proxy.url)
    assert far.get("key") == "old"
    found: list[object] = []

    def reread(key: str | None, **kwargs: object) -> None:
        if key is None:
            found.append(far.get("key"))

    key_changed.connect(reread)
    try:
        proxy.refusing = True
        proxy.cut()
        assert soon(lambda: near_of(far).state == "The connection was lost")
        other.set("key", "new")
        proxy.refusing = False
        # A receiver that reads at every gap sees the change, or a later signal announces it.
        assert receiver.next() == GAP
        assert soon(lambda: found == ["new"])
        other.set("next", 1)
        assert receiver.next().key == "next"
    finally:
        key_changed.disconnect(reread)


def test_a_gap_is_sent_if_the_bucket_is_recreated(
    receiver: Receiver, make_cache: MakeCache
) -> None:
    cache = following_cache(receiver, make_cache, {"MAX_STALE": 2})
    api(cache, f"STREAM.DELETE.{cache.bucket.config.stream}")
    assert receiver.next() == GAP
    cache.set("key", 1)
    assert receiver.next().key == "key"


class Slow:
    """A receiver that blocks in each call until ``go_on`` is set."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, **kwargs: object) -> None:
        self.begun.set()
        self.go_on.wait(30)


@pytest.fixture
def slow() -> Iterator[Slow]:
    receiver = Slow()
    key_changed.connect(receiver)
    yield receiver
    receiver.go_on.set()
    key_changed.disconnect(receiver)


def test_a_slow_receiver_gets_a_gap_instead_of_too_many_changes(
    slow: Slow,
    receiver: Receiver,
    make_cache: MakeCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(announce, "MAX_WAITING", 3)
    cache, silent = (
        make_cache(OPTIONS={"NEAR_CACHE": PATIENT_NEAR, "BUCKET": name}) for name in TWO
    )
    for each in (cache, silent):
        follow(each)
    assert slow.begun.wait(30)
    for each in (cache, silent):
        near_of(each)._follower.aliases = {each.bucket.config.name: None}
        for number in range(10):
            each.set(f"key-{number}", number)
    assert soon(lambda: all(changes_delivered_to(each) >= 10 for each in (cache, silent)))

    slow.go_on.set()

    wait_until_all_is_sent()  # otherwise the last change could be one too many
    assert receiver.aliases >= set(TWO)
    cache.set("last", 1)
    before = receiver.up_to("last")
    # At most MAX_WAITING changes, and gaps that stand for the changes that were dropped.
    assert 1 <= before.count(GAP) <= 4
    assert len(before) <= 3 + 4
    assert before[-1] == GAP


def test_every_overflow_sends_a_gap(
    slow: Slow, receiver: Receiver, make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "MAX_WAITING", 1)
    cache = make_cache(OPTIONS={"NEAR_CACHE": PATIENT_NEAR})
    follow(cache)
    for again in range(2):
        assert slow.begun.wait(30)
        for number in range(10):
            cache.set(f"key-{number}", number)
        assert soon(lambda: changes_delivered_to(cache) % 12 == 10)
        slow.go_on.set()
        wait_until_all_is_sent()  # otherwise the last change could be one too many
        cache.set("last", again)
        assert receiver.up_to("last")[-1] == GAP
        slow.begun.clear()
        slow.go_on.clear()
        cache.set("next", again)


TWO = ("overflow_one", "overflow_two")


# Receivers -----------------------------------------------------------------------------------


def test_a_receiver_may_use_the_cache(receiver: Receiver, cache: NatsCache) -> None:
    def copy(key: str | None, **kwargs: object) -> None:
        if key == "source":
            cache.set("target", cache.get("source"))

    key_changed.connect(copy)
    try:
        cache.set("source", 5)
        assert [receiver.next().key, receiver.next().key] == ["source", "target"]
        assert cache.get("target") == 5
    finally:
        key_changed.disconnect(copy)


def test_an_error_of_a_receiver_does_not_affect_others(
    receiver: Receiver, cache: NatsCache, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**kwargs: object) -> None:
        raise LookupError("a receiver's mistake")

    key_changed.connect(fail)
    try:
        cache.set("a", 1)
        cache.set("b", 1)
        assert [receiver.next().key, receiver.next().key] == ["a", "b"]
    finally:
        key_changed.disconnect(fail)


def test_changes_are_sent_after_a_receiver_raised_system_exit(
    receiver: Receiver, cache: NatsCache, caplog: pytest.LogCaptureFixture
) -> None:
    def leave(key: str | None, **kwargs: object) -> None:
        if key == "a":
            sys.exit("a receiver's mistake")

    key_changed.connect(leave)
    try:
        cache.set("a", 1)
        cache.set("b", 1)
        assert [receiver.next().key, receiver.next().key] == ["a", "b"]
    finally:
        key_changed.disconnect(leave)
    assert "Sending the signal key_changed failed; it is not repeated" in caplog.messages


def test_operations_do_not_wait_for_receivers(slow: Slow, make_cache: MakeCache) -> None:
    cache = make_cache(OPTIONS={"NEAR_CACHE": PATIENT_NEAR})
    follow(cache)
    assert slow.begun.wait(30)
    for number in range(100):
        cache.set("key", number)
        assert cache.get("key") == number


def test_changes_before_a_receiver_connects_are_not_sent(make_cache: MakeCache) -> None:
    cache = make_cache(OPTIONS={"NEAR_CACHE": PATIENT_NEAR})
    follow(cache)
    receiver = Receiver()
    cache.set("before", 1)
    assert soon(lambda: changes_delivered_to(cache) == 1)
    key_changed.connect(receiver)
    try:
        cache.set("after", 1)
        assert receiver.next().key == "after"
        with pytest.raises(Empty):
            receiver._events.get_nowait()
    finally:
        key_changed.disconnect(receiver)


def test_a_receivers_database_connection_is_closed(server: NatsServer, cache: NatsCache) -> None:
    """Run in a separate program, whose database is a file unlike that of the tests."""
    prelude = """
import sys, tempfile, threading
from django.conf import settings
file = tempfile.NamedTemporaryFile()
databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": file.name}}
settings.configure(SECRET_KEY="only-for-tests", DATABASES=databases)
import django
django.setup()
from django_nats.cache import NatsCache
patient = {"CONNECT_TIMEOUT": 100, "REQUEST_TIMEOUT": 100, "NEAR_CACHE": {"MAX_STALE": 30}}
options = {"BUCKET": sys.argv[2], "TOKEN": sys.argv[3], **patient}
cache = NatsCache(sys.argv[1], {"OPTIONS": options})
"""
    code = """
from queue import SimpleQueue
from django.db import connection
from django_nats.signals import key_changed
open_before = SimpleQueue()
def receiver(**kwargs):
    open_before.put(connection.connection is not None)
    connection.ensure_connection()
key_changed.connect(receiver)
print("ready", flush=True)
sys.stdin.readline()
cache.get("key")
print(open_before.get(timeout=100))
cache.set("key", 1)
print(open_before.get(timeout=100))
"""
    bucket = cache.bucket.config.name
    ended = run_script(code, server.url, bucket, server.token, prelude=prelude)
    assert (ended.status, ended.stdout) == (0, "False\nFalse"), ended.stderr
