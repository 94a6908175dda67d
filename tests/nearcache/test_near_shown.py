"""The state that a near cache shows, and a near cache without permission to follow changes."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.devserver import NatsServer
from tests.conftest import PATIENT, MakeCache, api
from tests.nearcache.conftest import (
    PATIENT_NEAR,
    changes_delivered_to,
    follow,
    near_of,
    soon,
)
from tests.support.logins import authorization
from tests.support.proxy import Proxy
from tests.support.scripts import run_script

# State ---------------------------------------------------------------------------------------


def test_a_cache_has_no_near_cache_without_the_option(cache: NatsCache) -> None:
    assert cache.near is None


@pytest.fixture
def switch_threads_often() -> Iterator[None]:
    """Make threads switch at every opportunity."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("switch_threads_often")
def test_threads_that_create_a_near_cache_at_once_share_it(make_cache: MakeCache) -> None:
    threads = 16
    for number in range(40):
        options = {"NEAR_CACHE": {}, "NAME": f"race {number}"}
        barrier = threading.Barrier(threads)
        made: list[NatsCache] = []

        def make(
            barrier: threading.Barrier = barrier,
            made: list[NatsCache] = made,
            options: dict[str, Any] = options,
        ) -> None:
            barrier.wait()
            made.append(make_cache(OPTIONS=options))

        racing = [threading.Thread(target=make) for _ in range(threads)]
        for each in racing:
            each.start()
        for each in racing:
            each.join()
        assert len({id(near_of(cache)) for cache in made}) == 1
        assert made[0].bucket._near_caches.copies == [near_of(made[0])._copies]


def test_a_near_cache_starts_with_the_first_read(make_cache: MakeCache) -> None:
    cache = make_cache(OPTIONS={"NEAR_CACHE": {}, "NAME": "fresh"})
    near = near_of(cache)
    assert near.state == "not started"
    assert not cache.session.connected
    cache.set("key", 1)
    names = api(cache, f"CONSUMER.NAMES.{cache.bucket.config.stream}")
    assert (names["total"], near.entries, near.state) == (0, 0, "not started")
    cache.get("key")
    assert soon(lambda: near.state == "whole")
    assert api(cache, f"CONSUMER.NAMES.{cache.bucket.config.stream}")["total"] == 1


def test_setup_and_checks_open_no_connection(server: NatsServer, proxy: Proxy) -> None:
    code = """
import sys
import django
from django.conf import settings
options = {"TOKEN": sys.argv[2], "NEAR_CACHE": {}}
entry = {"BACKEND": "django_nats.cache.NatsCache", "LOCATION": sys.argv[1], "OPTIONS": options}
settings.configure(CACHES={"default": entry}, INSTALLED_APPS=["django_nats"])
django.setup()
from django.core.cache import cache
from django.core.management import call_command
call_command("check", "--tag", "nats")
cache.near.stop()
import threading
print(repr(cache.near), [each.name for each in threading.enumerate()])
"""
    command = [sys.executable, "-c", code, proxy.url, server.token]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "feed not started>" in done.stdout
    assert "['MainThread']" in done.stdout
    assert proxy.connections == 0


def test_a_near_cache_shows_its_state_and_counts(near: Any, other: NatsCache) -> None:
    counted = near_of(near)
    near.set("key", 1)
    assert counted.state == "whole"
    assert counted.entries == 1
    assert 600 < counted.bytes < 1000
    other.set("key", 2)
    assert soon(lambda: changes_delivered_to(near.plain) == 2)
    assert counted.lag >= 0
    text = repr(counted)
    assert near.plain.bucket.config.name in text
    assert "feed whole>" in text
    for word in ("entries", "hits", "misses", "flushes"):
        assert word in text


def test_the_repr_shows_no_secret(near: Any, server: NatsServer) -> None:
    counted = near_of(near)
    assert server.token not in repr(counted) + repr(counted._watcher) + json.dumps(counted.state)


def test_a_stopped_near_cache_starts_with_the_next_read(
    near: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_nats.nearcache.near._STOP_TIMEOUT_S", 60.0)
    counted = near_of(near)
    near.set("key", 1)
    counted.stop()
    assert (counted.state, counted.entries) == ("not started", 0)
    assert near.get("key") == 1
    assert soon(lambda: counted.state == "whole")
    assert soon(lambda: near.get("key") == 1 and counted.entries == 1)


def test_stopping_on_the_loops_thread_does_not_wait(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_nats.nearcache.near._STOP_TIMEOUT_S", 3600.0)
    cache = make_cache(OPTIONS={"NEAR_CACHE": {}})
    near = follow(cache)
    done = threading.Event()

    def stop() -> None:
        near.stop()
        done.set()

    cache.session.call(stop)
    assert done.wait(60)
    assert soon(lambda: near.state == "not started")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_forked_while_a_near_cache_is_created_creates_its_own(server: NatsServer) -> None:
    prelude = """
import os, signal, sys, threading
from django.conf import settings
settings.configure()
from django_nats.cache import NatsCache
from django_nats.nearcache import near
"""
    code = """
print("ready", flush=True)
sys.stdin.readline()
held = threading.Event()
def hold():
    with near._creation_lock:
        held.set()
        threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
pid = os.fork()
if not pid:
    signal.alarm(500)
    NatsCache(sys.argv[1], {"OPTIONS": {"NEAR_CACHE": {}}})
    os._exit(0)
print(os.waitpid(pid, 0)[1])
"""
    ended = run_script(code, server.url, prelude=prelude)
    assert (ended.status, ended.stdout) == (0, "0"), ended.stderr


def test_wrapped_methods_of_a_cache_still_read_copies(make_cache: MakeCache) -> None:
    """Django Debug Toolbar wraps the methods of caches."""
    cache = make_cache(OPTIONS={"NEAR_CACHE": PATIENT_NEAR})
    near = follow(cache)
    calls = []
    for name in ("get", "set", "get_many", "incr", "delete"):
        original = getattr(cache, name)

        def wrapper(*args: Any, _original: Any = original, _name: str = name, **kwargs: Any) -> Any:
            calls.append(_name)
            return _original(*args, **kwargs)

        setattr(cache, name, wrapper)
    cache.set("key", 1)
    hits = near.hits
    assert cache.get("key") == 1
    assert cache.get_many(["key"]) == {"key": 1}
    assert near.hits == hits + 2
    assert cache.incr("key") == cache.get("key") == 2
    assert cache.delete("key")
    assert cache.get("key") is None
    assert calls == ["set", "get", "get_many", "incr", "get", "delete", "get"]


# Without permission --------------------------------------------------------------------------


def test_the_cache_works_without_permission_and_logs_it_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "django_nats")
    with NatsServer(token="", config=users('"$JS.API.CONSUMER.>"')) as server:
        options = {"USER": "web", "PASSWORD": "secret", "NEAR_CACHE": {}, **PATIENT}
        cache = NatsCache(server.url, {"OPTIONS": options})
        cache.get("key")
        assert soon(lambda: near_of(cache).state.startswith("No permission to publish to"))
        cache.set("key", 1)
        for _ in range(3):
            assert cache.get("key") == 1
        assert (near_of(cache).entries, near_of(cache).hits) == (0, 0)
        assert soon(lambda: "is unavailable" in caplog.text)
        logged = [
            each for each in caplog.messages if each.startswith("The change feed of the bucket")
        ]
        assert len(logged) == 1
        assert "$js.api.consumer.create" in logged[0].lower()
        assert "secret" not in caplog.text
        process.close()


def users(denied: str) -> str:
    permissions = f'{{ publish: {{ allow: ">", deny: [{denied}] }} }}'
    user = f"user: web, password: secret, permissions: {permissions}"
    return authorization(f"users: [{{ {user} }}]")
