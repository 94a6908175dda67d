"""Reads from copies, through the cache; each test is run by the sync methods and by the async."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import bridge
from django_nats.devserver import NatsServer
from django_nats.exceptions import Unavailable
from tests.cache.conftest import MakeTwin
from tests.conftest import MakeCache, api
from tests.nearcache.conftest import MakeNear, follow, hashed, near_of, soon, told_by
from tests.support.proxy import Proxy
from tests.support.scripts import run_script

# What is served from copies ------------------------------------------------------------------


@pytest.fixture
def far(make_near: MakeNear, make_cache: MakeCache, proxy: Proxy) -> Any:
    """A near cache on the other side of the proxy, with copies of ``key`` and a hundred others."""
    make_cache().set("key", 1, 1000)  # the bucket goes with the cache that is not behind the proxy
    far = make_near({"location": proxy.url})
    far.set_many(hundred, 1000)
    far.get_many([*hundred, "key"])
    return far


hundred = {f"key-{number}": number for number in range(100)}


@pytest.mark.parametrize(
    ("requests", "operation", "expected"),
    [
        pytest.param(0, lambda cache: cache.get("key"), 1, id="get"),
        pytest.param(0, lambda cache: cache.get("key", 5), 1, id="get with default"),
        pytest.param(0, lambda cache: cache.has_key("key"), True, id="has_key"),
        pytest.param(0, lambda cache: cache.get_or_set("key", 2), 1, id="get_or_set"),
        pytest.param(0, lambda cache: cache.get_many(hundred), hundred, id="get_many"),
        pytest.param(
            1, lambda cache: cache.get_many(["key", "absent"]), {"key": 1}, id="get_many of some"
        ),
        pytest.param(1, lambda cache: cache.get("absent"), None, id="get missing"),
        pytest.param(1, lambda cache: cache.has_key("absent"), False, id="has_key missing"),
        pytest.param(1, lambda cache: cache.ttl("key"), 1000, id="ttl"),
        pytest.param(1, lambda cache: cache.get_with_revision("key")[0], 1, id="revision"),
        pytest.param(2, lambda cache: cache.incr("key"), 2, id="incr"),
    ],
)
def test_what_is_copied_costs_no_request(
    far: Any, proxy: Proxy, requests: int, operation: Callable[[Any], Any], expected: object
) -> None:
    before = proxy.requests
    assert operation(far) == expected
    assert proxy.requests - before == requests


def test_hits_and_misses_are_counted(near: Any) -> None:
    counted = near_of(near)
    near.set("key", 1)
    hits, misses = counted.hits, counted.misses

    near.get("key")
    near.get_many(["key", "absent"])
    near.get("absent")

    assert (counted.hits - hits, counted.misses - misses) == (2, 2)


def test_the_statistics_of_the_cache_count_copies(near: Any) -> None:
    near.set("key", 1)
    before = near.stats()
    for _ in range(3):
        assert near.get("key") == 1
    assert near.stats().hits == before.hits + 3


def test_only_keys_of_the_patterns_are_copied(make_near: MakeNear) -> None:
    cache = make_near({"KEY_PREFIX": "site:a"}, KEYS=["flags:*", "config"])
    near = near_of(cache)
    for key in ("flags:a", "flags:b:c", "config", "flagship", "config:a", "other:flags:a"):
        cache.set(key, 1)
        cache.set(key, 2, version=2)
    assert near.entries == 6
    hits = near.hits
    wanted = ["flags:a", "flags:b:c", "config"]
    assert cache.get_many(wanted, version=2) == dict.fromkeys(wanted, 2)
    assert near.hits - hits == 3
    assert cache.get("flagship") == 1
    assert near.hits - hits == 3


def test_keys_of_a_hashing_key_function_are_copied(make_near: MakeNear, other: NatsCache) -> None:
    cache = make_near({"KEY_FUNCTION": hashed})
    cache.set("key", 1)
    assert near_of(cache).entries == 1
    other.key_func = hashed
    other.set("key", 2)
    assert soon(lambda: cache.get("key") == 2)


tenant = ContextVar("tenant", default="public")


def of_the_tenant(key: str, prefix: str, version: int) -> str:
    return f"{tenant.get()}:{prefix}:{version}:{key}"


def test_tenants_share_one_near_cache(make_cache: MakeCache) -> None:
    """As under ASGI, where Django makes a cache for every request."""

    def of(name: str) -> NatsCache:
        tenant.set(name)
        options = {"NEAR_CACHE": {"KEYS": ["flags:*"]}}
        return make_cache(KEY_FUNCTION=of_the_tenant, OPTIONS=options)

    near = follow(of("one"))
    for name in ("one", "two"):
        of(name).set("flags:a", name)
        assert near_of(of(name)) is near
    hits = near.hits
    for name in ("one", "two"):
        assert of(name).get("flags:a") == name
    assert (near.hits, near.entries) == (hits + 2, 2)


@pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
def test_long_keys_are_copied(make_near: MakeNear, other: NatsCache) -> None:
    cache = make_near(KEYS=["flags:*"])
    key = f"flags:{'x' * 3000}"
    cache.set(key, 1)
    hits = near_of(cache).hits
    assert cache.get(key) == 1
    assert near_of(cache).hits == hits + 1
    other.set(key, 2)
    assert soon(lambda: cache.get(key) == 2)


# What is not kept ----------------------------------------------------------------------------


def test_a_copy_expires_when_its_value_does(near: Any) -> None:
    begun = time.monotonic()
    near.set("key", 1, 1.5)
    hits = near_of(near).hits
    asked = latest = stored = time.monotonic()
    while near.get("key") == 1:
        latest, asked = asked, time.monotonic()
    # 10 ms for the estimate of the server's clock.
    assert time.monotonic() - begun > 1.49
    assert latest - stored < 1.52
    assert near_of(near).hits > hits


def test_a_copy_is_read_anew_after_max_age(make_near: MakeNear) -> None:
    cache = make_near(MAX_AGE=0.3)
    cache.set("key", 1)
    misses = near_of(cache).misses
    assert soon(lambda: cache.get("key") == 1 and near_of(cache).misses > misses)


def test_misses_are_kept_where_asked_for(make_near: MakeNear, other: NatsCache) -> None:
    cache = make_near(MISSES=True)
    near = near_of(cache)
    for _ in range(2):
        assert cache.get("absent", "default") == "default"
        assert cache.get_many(["absent"]) == {}
        assert not cache.has_key("absent")
    assert near.misses - near.hits < 1
    assert near.entries == 1
    other.add("absent", 1)
    assert soon(lambda: cache.get("absent") == 1)
    other.delete("absent")
    assert soon(lambda: cache.get("absent") is None)
    assert cache.get_or_set("absent", 2) == 2
    assert cache.get("absent") == 2


def test_misses_are_not_kept_otherwise(near: Any) -> None:
    near.get("absent")
    near.get_many(["absent"])
    assert near_of(near).entries == 0


def test_what_is_too_large_is_not_kept(make_near: MakeNear) -> None:
    cache = make_near(MAX_BYTES=5000)
    large = os.urandom(5000)
    cache.set("small", 1)
    cache.set("large", large)
    assert cache.get("large") == large
    assert near_of(cache).entries == 1
    assert near_of(cache).bytes < 5000


def test_bytes_are_bounded(make_near: MakeNear) -> None:
    cache = make_near(MAX_BYTES="20kB")
    values = {f"key-{number}": os.urandom(3000) for number in range(20)}
    cache.set_many(values)
    assert cache.get_many(values) == values
    assert 3 <= near_of(cache).entries <= 6
    assert 10_000 < near_of(cache).bytes <= 20_000


def test_what_was_read_longest_ago_makes_room(make_near: MakeNear) -> None:
    cache = make_near(MAX_ENTRIES=2)
    near = near_of(cache)
    cache.set("a", 1)
    cache.set("b", 2)
    cache.get("a")
    cache.set("c", 3)
    hits, misses = near.hits, near.misses
    assert (cache.get("a"), cache.get("c")) == (1, 3)
    assert (near.entries, near.hits - hits) == (2, 2)
    assert cache.get("b") == 2
    assert near.misses == misses + 1


# Values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: [1], lambda: {"a": [1]}, lambda: ([1],), bytearray])
def test_no_caller_can_change_what_another_gets(near: Any, make: Callable[[], Any]) -> None:
    own = make()
    near.set("key", own)
    hits = near_of(near).hits
    for value in (own, near.get("key"), near.get_many(["key"])["key"], near.get_or_set("key", 1)):
        inner = value["a"] if isinstance(value, dict) else value
        (inner[0] if isinstance(inner, tuple) else inner).append(9)
    assert near.get("key") == make()
    assert near_of(near).hits == hits + 4


@pytest.mark.parametrize("value", ["text", b"bytes", 7, 2.5, True, None, "x" * 5000])
def test_values_that_nobody_can_change(near: Any, value: object) -> None:
    near.set("key", value)
    for _ in range(3):
        found = near.get("key", "default")
        assert found == value
        assert type(found) is type(value)


def test_each_alias_reads_copies_by_its_own_serializer(
    make_near: MakeNear, caplog: pytest.LogCaptureFixture
) -> None:
    pickle = make_near()
    json_only = make_near({"OPTIONS": {"SERIALIZER": "django_nats.serializers.JSONSerializer"}})
    assert near_of(json_only) is near_of(pickle)
    pickle.set("key", "text")
    assert pickle.get("key") == "text"
    assert json_only.get("key") is None
    assert "is taken as missing" in caplog.text
    json_only.set("key", "other")
    assert json_only.get("key") == "other"
    assert pickle.get("key") is None
    assert near_of(pickle).entries == 1


# The server is away --------------------------------------------------------------------------


@pytest.mark.parametrize("fail_open", [False, True])
def test_while_the_server_is_away(
    make_twin: MakeTwin, own_server: NatsServer, fail_open: bool
) -> None:
    options = {"STORAGE": "file", "FAIL_OPEN": fail_open, "NEAR_CACHE": {}, "REQUEST_TIMEOUT": 0.3}
    cache = make_twin(on=own_server, OPTIONS=options)
    near = follow(cache)
    cache.set("key", 1)

    own_server.kill()
    assert soon(lambda: near.entries == 0)
    assert near.flushes == 1
    if fail_open:
        assert cache.get("key", "default") == "default"
        assert cache.get_many(["key"]) == {}
        assert cache.get_or_set("key", 2) == 2
    else:
        with pytest.raises(Unavailable):
            cache.get("key")
    assert soon(lambda: "connection" in near.state.lower())

    own_server.start()
    assert soon(lambda: stored_again(cache))
    assert soon(lambda: near.state == "whole")
    assert soon(lambda: cache.get("key") == 1 and near.entries == 1)


def stored_again(cache: Any) -> bool:
    try:
        return bool(cache.get("key") == 1)
    except Unavailable:
        return False


def test_a_server_that_hangs_is_read_from_copies_no_longer_than_max_stale(
    make_twin: MakeTwin, own_server: NatsServer
) -> None:
    options = {"NEAR_CACHE": {"MAX_STALE": 0.5}, "REQUEST_TIMEOUT": 0.3, "FAIL_OPEN": True}
    cache = make_twin(on=own_server, OPTIONS=options)
    near = follow(cache)
    cache.set("key", 1)
    own_server.pause()
    paused = time.monotonic()
    latest = 0.0
    while True:
        asked = time.monotonic()
        if cache.get("key") is None:
            break
        latest = asked
    assert latest - paused < 0.5
    assert near.state == "not proven current"
    own_server.resume()
    assert soon(lambda: cache.get("key") == 1 and near.entries == 1)


# What can be seen of it ----------------------------------------------------------------------


def test_there_is_none_without_the_option(cache: NatsCache) -> None:
    assert cache.near is None


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads that take turns at every opportunity."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty")
def test_threads_that_make_it_at_once_make_one(make_cache: MakeCache) -> None:
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
        assert made[0]._bucket._copies == [near_of(made[0])._copies]


def test_nothing_happens_before_the_first_read(make_cache: MakeCache) -> None:
    cache = make_cache(OPTIONS={"NEAR_CACHE": {}, "NAME": "fresh"})
    near = near_of(cache)
    assert near.state == "not started"
    assert not cache.session.connected
    cache.set("key", 1)
    names = api(cache, f"CONSUMER.NAMES.{cache._bucket.config.stream}")
    assert (names["total"], near.entries, near.state) == (0, 0, "not started")
    cache.get("key")
    assert soon(lambda: near.state == "whole")
    assert api(cache, f"CONSUMER.NAMES.{cache._bucket.config.stream}")["total"] == 1


def test_nothing_is_opened_by_setup_and_checks(server: NatsServer, proxy: Proxy) -> None:
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


def test_it_tells_how_it_does(near: Any, other: NatsCache) -> None:
    counted = near_of(near)
    near.set("key", 1)
    assert counted.state == "whole"
    assert counted.entries == 1
    assert 600 < counted.bytes < 1000
    other.set("key", 2)
    assert soon(lambda: told_by(near.plain) == 2)
    assert 0 <= counted.lag < 5  # by the server's clock, as well as that is known
    text = repr(counted)
    assert near.plain._bucket.config.name in text
    assert "feed whole>" in text
    for word in ("entries", "hits", "misses", "flushes"):
        assert word in text


def test_its_repr_shows_no_secret(near: Any, server: NatsServer) -> None:
    counted = near_of(near)
    assert server.token not in repr(counted) + repr(counted._watcher) + json.dumps(counted.state)


def test_stopped_it_starts_with_the_next_read(near: Any) -> None:
    counted = near_of(near)
    near.set("key", 1)
    counted.stop()
    assert (counted.state, counted.entries) == ("not started", 0)
    assert near.get("key") == 1
    assert soon(lambda: counted.state == "whole")
    assert soon(lambda: near.get("key") == 1 and counted.entries == 1)


def test_on_the_loops_own_thread_nobody_waits_for_its_end(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_nats.nearcache.near._LAST_WORDS", 20.0)
    cache = make_cache(OPTIONS={"NEAR_CACHE": {}})
    near = follow(cache)
    done = threading.Event()
    took = 0.0

    def stop() -> None:
        nonlocal took
        began = time.monotonic()
        near.stop()
        took = time.monotonic() - began
        done.set()

    cache.session.call(stop)
    assert done.wait(30)
    assert took < 10
    assert soon(lambda: near.state == "not started")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_forked_while_a_near_cache_is_made_makes_its_own(server: NatsServer) -> None:
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
    with near._making:
        held.set()
        threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
pid = os.fork()
if not pid:
    signal.alarm(10)
    NatsCache(sys.argv[1], {"OPTIONS": {"NEAR_CACHE": {}}})
    os._exit(0)
print(os.waitpid(pid, 0)[1])
"""
    ended = run_script(code, server.url, prelude=prelude)
    assert (ended.status, ended.stdout) == (0, "0"), ended.stderr


def test_tools_may_wrap_its_methods(make_cache: MakeCache) -> None:
    """As Django Debug Toolbar does."""
    cache = make_cache(OPTIONS={"NEAR_CACHE": {}})
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


def test_without_permission_the_cache_works_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "django_nats")
    with NatsServer(token="", config=users('"$JS.API.CONSUMER.>"')) as server:
        options = {"USER": "web", "PASSWORD": "secret", "NEAR_CACHE": {}}
        cache = NatsCache(server.url, {"OPTIONS": options})
        cache.get("key")
        assert soon(lambda: near_of(cache).state.startswith("No permission to publish to"))
        cache.set("key", 1)
        for _ in range(3):
            assert cache.get("key") == 1
        assert (near_of(cache).entries, near_of(cache).hits) == (0, 0)
        assert soon(lambda: "cannot be opened, and is done without" in caplog.text)
        said = [
            each for each in caplog.messages if each.startswith("The change feed of the bucket")
        ]
        assert len(said) == 1
        assert "$js.api.consumer.create" in said[0].lower()
        assert "secret" not in caplog.text
        bridge.close()


def users(denied: str) -> str:
    permissions = f'{{ publish: {{ allow: ">", deny: [{denied}] }} }}'
    user = f"user: web, password: secret, permissions: {permissions}"
    return f"authorization {{ users: [{{ {user} }}] }}"
