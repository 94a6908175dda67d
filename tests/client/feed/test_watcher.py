"""The watcher, which opens and reopens a feed, also after refusals of the server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.client.feed import watcher
from django_nats.client.transport.loop import thread as loop_thread
from django_nats.devserver import NatsServer
from django_nats.exceptions import NotSent, PermissionDenied, ServerError
from tests.conftest import PATIENT, MakeCache, api, lasting_consumer
from tests.support.following import Following, Recorder
from tests.support.logins import authorization
from tests.support.reloading import LOGIN, Reloading, account


@pytest.fixture
def crowded(cache: NatsCache) -> NatsCache:
    """Create a bucket that allows one consumer and has one."""
    stream = cache.bucket.config.stream
    config = {**cache.bucket.config.stream_config(), "max_consumers": 1}
    api(cache, f"STREAM.CREATE.{stream}", config)
    taken = api(cache, f"CONSUMER.CREATE.{stream}.taken", lasting_consumer(stream))
    assert "error" not in taken
    return cache


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "_RETRY_REFUSED_S", 0.05)


def about_feeds(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each for each in caplog.messages if each.startswith("The change feed of the bucket")]


def test_a_refusal_and_its_end_are_logged_once(
    crowded: NatsCache, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "django_nats")
    following = Following(crowded, wait=False)
    following.wait_for(lambda: len(following.recorder.refusals) >= 3)
    assert "maximum consumers limit reached" in following.watcher.state
    assert isinstance(following.recorder.refusals[0], ServerError)
    bucket = crowded.bucket.config.name
    assert len(about_feeds(caplog)) == 1
    assert about_feeds(caplog)[0].startswith(
        f"The change feed of the bucket {bucket} is unavailable: "
    )

    api(crowded, f"CONSUMER.DELETE.{crowded.bucket.config.stream}.taken")

    following.wait_for(lambda: bool(following.recorder.proofs))
    assert following.watcher.state == "whole"
    assert about_feeds(caplog)[1:] == [f"The change feed of the bucket {bucket} is available again"]
    following.stop()


def test_a_new_reason_of_a_refusal_is_logged(
    impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    def denying(subject: str) -> str:
        return account(permissions=f'publish: {{ deny: ["{subject}"] }}')

    create, info = "$JS.API.CONSUMER.CREATE.", "$JS.API.STREAM.INFO."
    with Reloading(config=account(), token="") as server:
        cache = NatsCache(server.url, {"OPTIONS": {**LOGIN, **PATIENT}})
        cache.set("key", 1)
        server.reload(denying(f"{create}>"))
        following = Following(cache, wait=False)
        following.wait_for(lambda: len(following.recorder.refusals) >= 3)
        assert len(about_feeds(caplog)) == 1
        assert create in about_feeds(caplog)[0]
        server.reload(denying(f"{info}>"))
        following.wait_for(lambda: len(about_feeds(caplog)) == 2)
        seen = len(following.recorder.refusals)
        following.wait_for(lambda: len(following.recorder.refusals) >= seen + 2)
        assert len(about_feeds(caplog)) == 2
        assert info in about_feeds(caplog)[1]
        following.stop()
        process.close()


def test_a_refused_feed_is_retried_rarely(crowded: NatsCache) -> None:
    following = Following(crowded, wait=False)
    following.wait_for(lambda: bool(following.recorder.refusals))
    asked = time.monotonic()
    following.wait_for(lambda: time.monotonic() > asked + 0.5)
    assert len(following.recorder.refusals) == 1
    following.stop()


@pytest.mark.parametrize("denied", ["$JS.API.CONSUMER.CREATE.>", "$JS.API.STREAM.INFO.>"])
def test_the_missing_permission_is_named(denied: str) -> None:
    user = f'user: web, password: secret, permissions: {{ publish: {{ deny: ["{denied}"] }} }}'
    with NatsServer(token="", config=authorization(f"users: [{{ {user} }}]")) as server:
        options = {"USER": "web", "PASSWORD": "secret", **PATIENT}
        cache = NatsCache(server.url, {"OPTIONS": options})
        following = Following(cache, wait=False)
        following.wait_for(lambda: bool(following.recorder.refusals))
        assert isinstance(following.recorder.refusals[0], PermissionDenied)
        assert following.watcher.state.startswith("No permission to publish to ")
        assert denied.rstrip(">").lower() in following.watcher.state.lower()
        following.stop()
        process.close()


def test_the_state_of_a_watcher_is_described(cache: NatsCache) -> None:
    following = Following(cache)
    bucket = cache.bucket.config.name
    assert repr(following.watcher) == f"<Watcher $KV.{bucket}.>: whole>"
    cache.set("key", 1)
    following.wait_for(lambda: len(following.recorder.revisions) == 1)
    assert 0 <= following.watcher.lag < 60
    following.stop()
    assert repr(following.watcher) == f"<Watcher $KV.{bucket}.>: not started>"
    assert following.watcher.lag == 0


def test_a_watcher_can_be_started_once_and_again_after_a_stop(cache: NatsCache) -> None:
    following = Following(cache)
    names = f"CONSUMER.NAMES.{cache.bucket.config.stream}"
    for _ in range(3):
        following.watcher.start()
        following.wait_for(lambda: following.watcher.state == "whole")
        # The consumer of the previous feed may be deleted a little later.
        following.wait_for(lambda: api(cache, names)["total"] == 1)
        following.stop()


def test_a_watcher_can_be_started_again_after_an_early_stop(cache: NatsCache) -> None:
    following = Following(cache)
    following.stop()
    for _ in range(50):
        following.watcher.start()
        following.stop()
    lives = following.recorder.lives
    following.watcher.start()
    following.wait_for(lambda: following.recorder.lives > lives)
    following.stop()


def test_two_threads_that_start_a_watcher_at_once_open_one_feed(cache: NatsCache) -> None:
    following = Following(cache)
    first = following.watcher._task
    following.watcher.started = False  # as the other thread read it
    following.watcher.start()
    on_the_loop(cache)
    assert following.watcher._task is first
    following.stop()


def test_a_watcher_that_starts_while_connections_close_counts_as_started(cache: NatsCache) -> None:
    following = Following(cache)
    following.stop()
    # The watcher was started, and reset by close(), before the new loop first ran.
    cache.session.call(following.watcher._begin)
    following.wait_for(lambda: following.watcher.started)
    following.stop()


def on_the_loop(cache: NatsCache) -> None:
    """Wait until the loop has run everything that was queued before."""
    done = threading.Event()
    cache.session.call(done.set)
    assert done.wait(30)


def test_stopping_starts_nothing(cache: NatsCache) -> None:
    following = Following(cache)
    process.close()
    stopped = threading.Event()
    following.watcher.stop(stopped.set)
    assert stopped.is_set()
    assert not loop_thread.alive


class Mistaken(Recorder):
    """A listener that raises when asked where to begin."""

    def position(self, stream: Mapping[str, Any]) -> dict[str, Any]:
        raise LookupError("a listener's mistake")


def test_an_unexpected_error_ends_the_watcher_and_is_logged(
    cache: NatsCache, caplog: pytest.LogCaptureFixture
) -> None:
    following = Following(cache, recorder=Mistaken(), wait=False)
    following.wait_for(lambda: bool(following.recorder.ends))
    (ended,) = following.recorder.ends
    bucket = cache.bucket.config.name
    assert isinstance(ended, NotSent)
    assert str(ended) == f"The change feed of the bucket {bucket} has ended by an unexpected error"
    assert isinstance(ended.__cause__, LookupError)
    assert not following.watcher.started
    following.wait_for(lambda: str(ended) in caplog.messages)
    assert any(each.exc_info and each.exc_info[1] is ended.__cause__ for each in caplog.records)


def test_a_watcher_ends_with_the_connections(cache: NatsCache) -> None:
    following = Following(cache)
    process.close()
    assert not following.watcher.started
    assert following.recorder.events == ["opened", "shut"]
    assert [str(each) for each in following.recorder.ends] == ["The connection has been closed"]
    following.watcher.start()
    following.wait_for(lambda: following.recorder.lives == 2)
    following.stop()


def test_a_watcher_waits_for_the_first_connection(
    own_server: NatsServer, make_cache: MakeCache
) -> None:
    cache = make_cache(on=own_server)
    own_server.stop()
    following = Following(cache, wait=False)
    following.wait_for(lambda: following.watcher.state.startswith("No connection to NATS at"))
    assert following.recorder.refusals == []
    own_server.start()
    following.wait_for(lambda: bool(following.recorder.proofs))
    following.stop()
