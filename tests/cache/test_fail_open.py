"""FAIL_OPEN: what every public method returns while the server is away, sync and async."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import bridge
from django_nats.devserver import NatsServer
from django_nats.exceptions import NotSent, OutcomeUnknown
from tests.support.ports import free_port

MISSING = object()

CALLS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any], Any]] = {
    "get": ("get", ("key",), {}, None),
    "get with a default": ("get", ("key", MISSING), {}, MISSING),
    "get_with_revision": ("get_with_revision", ("key", MISSING), {}, (MISSING, 0)),
    "get_many": ("get_many", (["a", "b"],), {}, {}),
    "keys": ("keys", ("*",), {}, []),
    "iter_keys": ("iter_keys", ("*",), {}, []),
    "has_key": ("has_key", ("key",), {}, False),
    "set": ("set", ("key", 1), {}, None),
    "set not at all": ("set", ("key", 1, 0), {}, None),
    "set nx": ("set", ("key", 1), {"nx": True}, False),
    "set revision": ("set", ("key", 1), {"revision": 7}, False),
    "set_many": ("set_many", ({"a": 1, "b": 2},), {}, ["a", "b"]),
    "add": ("add", ("key", 1), {}, False),
    "touch": ("touch", ("key",), {}, False),
    "expire": ("expire", ("key", 10), {}, False),
    "pexpire": ("pexpire", ("key", 10_000), {}, False),
    "expire_at": ("expire_at", ("key", 4e9), {}, False),
    "persist": ("persist", ("key",), {}, False),
    "ttl": ("ttl", ("key",), {}, None),
    "pttl": ("pttl", ("key",), {}, None),
    "incr": ("incr", ("key",), {}, None),
    "decr": ("decr", ("key",), {}, None),
    "incr_version": ("incr_version", ("key",), {}, None),
    "decr_version": ("decr_version", ("key",), {}, None),
    "delete": ("delete", ("key",), {}, False),
    "delete_many": ("delete_many", (["a", "b"],), {}, None),
    "delete_pattern": ("delete_pattern", ("*",), {}, 0),
    "clear": ("clear", (), {}, None),
    "get_or_set": ("get_or_set", ("key", 5), {}, 5),
    "get_or_set a function": ("get_or_set", ("key", lambda: 6), {}, 6),
    "update": ("update", ("key", lambda value: value + 1), {"default": 7}, 8),
}
"""Method, arguments, and what it returns under FAIL_OPEN."""

Call = Callable[..., Any]


def _sync(cache: NatsCache, method: str, *args: Any, **kwargs: Any) -> Any:
    result = getattr(cache, method)(*args, **kwargs)
    return list(result) if inspect.isgenerator(result) else result


def _async(cache: NatsCache, method: str, *args: Any, **kwargs: Any) -> Any:
    async def call() -> Any:
        result = getattr(cache, f"a{method}")(*args, **kwargs)
        if inspect.isasyncgen(result):
            return [item async for item in result]
        return await result

    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(call())
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def nowhere() -> str:
    return f"nats://127.0.0.1:{free_port()}"


def _cache(location: str, token: str = "", **options: Any) -> NatsCache:
    options = {"BUCKET": "fail_open", "REQUEST_TIMEOUT": 0.3, **options}
    return NatsCache(location, {"OPTIONS": {**options, **({"TOKEN": token} if token else {})}})


@pytest.fixture(scope="module")
def stoppable() -> Iterator[NatsServer]:
    with NatsServer() as running, pytest.MonkeyPatch.context() as patch:
        # A timeout alone is to end what it is asked, not a connection that counts as lost.
        patch.setattr("django_nats.client.connection.PING_INTERVAL", 60.0)
        _cache(running.url, running.token).set("key", 1)
        yield running
        bridge.close()


@pytest.fixture
def paused(stoppable: NatsServer) -> Iterator[NatsServer]:
    cache = _cache(stoppable.url, stoppable.token)
    cache.get("key")
    stoppable.pause()
    yield stoppable
    stoppable.resume()
    deadline = time.monotonic() + 30
    while not cache.session.connected:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _operations() -> set[str]:
    """Every public operation, by its async twin: whatever has one speaks to the server."""
    names = {name for name in dir(NatsCache) if not name.startswith("_")}
    return {name for name in names if f"a{name}" in names}


def test_the_table_is_complete() -> None:
    covered = {method for method, *_ in CALLS.values()}
    assert _operations() - covered == {"close", "stats"}


@pytest.mark.parametrize("row", CALLS)
def test_away(call: Call, nowhere: str, row: str) -> None:
    method, args, kwargs, expected = CALLS[row]
    found = call(_cache(nowhere, FAIL_OPEN=True), method, *args, **kwargs)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("row", CALLS)
def test_away_without_fail_open(call: Call, nowhere: str, row: str) -> None:
    method, args, kwargs, _ = CALLS[row]
    with pytest.raises(NotSent) as raised:
        call(_cache(nowhere), method, *args, **kwargs)
    assert isinstance(raised.value.__cause__, OSError)


def test_in_is_has_key(nowhere: str) -> None:
    assert "key" not in _cache(nowhere, FAIL_OPEN=True)
    with pytest.raises(NotSent):
        assert "key" in _cache(nowhere)


def test_close_does_nothing(call: Call, nowhere: str) -> None:
    for cache in (_cache(nowhere), _cache(nowhere, FAIL_OPEN=True)):
        assert call(cache, "close") is None


def test_stats_tell_what_is_known(call: Call, nowhere: str) -> None:
    stats = call(_cache(nowhere, FAIL_OPEN=True), "stats")
    assert not stats.connected
    assert (stats.bucket, stats.entries) == ("fail_open", 0)


@pytest.mark.parametrize("row", ["get", "set", "get_many", "set_many", "delete", "incr", "update"])
def test_stopped(call: Call, paused: NatsServer, row: str) -> None:
    method, args, kwargs, expected = CALLS[row]
    cache = _cache(paused.url, paused.token, FAIL_OPEN=True)
    started = time.monotonic()
    assert call(cache, method, *args, **kwargs) == expected
    assert time.monotonic() - started < 0.3 + 5  # seconds for a busy machine


@pytest.mark.parametrize("row", ["get", "set", "get_many", "set_many", "delete", "incr"])
def test_stopped_without_fail_open(call: Call, paused: NatsServer, row: str) -> None:
    method, args, kwargs, _ = CALLS[row]
    cache = _cache(paused.url, paused.token)
    with pytest.raises(OutcomeUnknown):
        call(cache, method, *args, **kwargs)
    with pytest.raises(NotSent):
        call(cache, method, *args, **kwargs)


@pytest.mark.parametrize("row", ["get_or_set a function", "update"])
def test_a_users_function_is_called_once(call: Call, nowhere: str, row: str) -> None:
    calls = []

    def function(*args: Any) -> int:
        calls.append(args)
        return 1

    method, _, kwargs, _ = CALLS[row]
    assert call(_cache(nowhere, FAIL_OPEN=True), method, "key", function, **kwargs) == 1
    assert len(calls) == 1


@pytest.mark.parametrize("row", ["get_or_set", "update"])
def test_a_users_error_is_not_swallowed(call: Call, nowhere: str, row: str) -> None:
    def function(*_: Any) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call(_cache(nowhere, FAIL_OPEN=True), row, "key", function)


def test_a_mistake_of_the_callers_is_raised_all_the_same(call: Call, nowhere: str) -> None:
    with pytest.raises(TypeError, match="timeout"):
        call(_cache(nowhere, FAIL_OPEN=True), "set", "key", 1, "soon")
