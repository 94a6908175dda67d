"""FAIL_OPEN: the result of every public method while the server is unreachable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.sessions.backends.cache import SessionStore

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.devserver import NatsServer
from django_nats.exceptions import BucketFull, NotSent, NotServed, OutcomeUnknown
from tests.conftest import PATIENT, MakeCache
from tests.servers import eventually
from tests.support.operations import ANY_REVISION, CACHE, Expected, alisted, listed, run
from tests.support.patience import hurried
from tests.support.ports import free_port
from tests.support.reloading import LOGIN, Reloading, account

Call = Callable[..., Any]


def _sync(cache: NatsCache, method: str, *args: Any, **kwargs: Any) -> Any:
    return listed(getattr(cache, method)(*args, **kwargs))


def _async(cache: NatsCache, method: str, *args: Any, **kwargs: Any) -> Any:
    return run(alisted(getattr(cache, f"a{method}")(*args, **kwargs)))


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def unreachable_url() -> str:
    return f"nats://127.0.0.1:{free_port()}"


def _cache(location: str, token: str = "", **options: Any) -> NatsCache:
    options = {"BUCKET": "fail_open", **PATIENT, **options}
    return NatsCache(location, {"OPTIONS": {**options, **({"TOKEN": token} if token else {})}})


@pytest.fixture(scope="module")
def pausable_server() -> Iterator[NatsServer]:
    with NatsServer() as running, pytest.MonkeyPatch.context() as patch:
        # Requests must end by their timeout, not because the connection counts as lost.
        patch.setattr("django_nats.client.transport.connection.PING_INTERVAL_S", 60.0)
        _cache(running.url, running.token).set("key", 1)
        yield running
        process.close()


@pytest.fixture
def paused_server(pausable_server: NatsServer) -> Iterator[NatsServer]:
    cache = _cache(pausable_server.url, pausable_server.token)
    cache.get("key")
    pausable_server.pause()
    with hurried(cache, 0.3):  # and every other cache on the same bucket
        yield pausable_server
    pausable_server.resume()
    lanes = cache.bucket.stream.lanes.reads, cache.bucket.stream.lanes.writes
    assert eventually(lambda: cache.session.connected and not any(each.fault for each in lanes))


def _called(call: Call, cache: NatsCache, row: str) -> Any:
    """Return the result of a row of the table of operations."""
    operation = CACHE[row].at(ANY_REVISION)
    return call(cache, operation.method, *operation.args, **operation.kwargs)


@pytest.mark.parametrize("row", CACHE)
def test_every_operation_returns_its_fail_open_result_while_the_server_is_unreachable(
    call: Call, unreachable_url: str, row: str
) -> None:
    found, expected = _called(call, _cache(unreachable_url, FAIL_OPEN=True), row), CACHE[row].away
    assert expected == found
    assert isinstance(expected, (Expected, type(found)))


@pytest.mark.parametrize("row", [row for row in CACHE if CACHE[row].asks])
def test_every_operation_raises_without_fail_open_while_the_server_is_unreachable(
    call: Call, unreachable_url: str, row: str
) -> None:
    with pytest.raises(NotSent) as raised:
        _called(call, _cache(unreachable_url), row)
    assert isinstance(raised.value.__cause__, OSError)


def test_the_in_operator_behaves_like_has_key(unreachable_url: str) -> None:
    assert "key" not in _cache(unreachable_url, FAIL_OPEN=True)
    with pytest.raises(NotSent):
        assert "key" in _cache(unreachable_url)


def test_close_does_nothing(call: Call, unreachable_url: str) -> None:
    assert _called(call, _cache(unreachable_url), "close") is None


def test_stats_are_returned_while_the_server_is_unreachable(
    call: Call, unreachable_url: str
) -> None:
    stats = call(_cache(unreachable_url, FAIL_OPEN=True), "stats")
    assert not stats.connected
    assert (stats.bucket, stats.entries, stats.rtt) == ("fail_open", 0, None)


@pytest.mark.parametrize("row", ["get", "set", "get_many", "set_many", "delete", "incr", "update"])
def test_operations_return_their_fail_open_result_while_the_server_does_not_answer(
    call: Call, paused_server: NatsServer, row: str
) -> None:
    cache = _cache(paused_server.url, paused_server.token, FAIL_OPEN=True)
    for _ in range(2):
        assert _called(call, cache, row) == CACHE[row].away


@pytest.mark.parametrize("row", ["get", "set", "get_many", "set_many", "delete", "incr"])
def test_operations_raise_without_fail_open_while_the_server_does_not_answer(
    call: Call, paused_server: NatsServer, row: str
) -> None:
    cache = _cache(paused_server.url, paused_server.token)
    with pytest.raises(OutcomeUnknown):
        _called(call, cache, row)
    with pytest.raises(NotSent):
        _called(call, cache, row)


@pytest.fixture(scope="module")
def switched_off() -> Iterator[str]:
    """Yield the URL of a server that has switched JetStream off for the account of LOGIN.

    It was on when this process opened the bucket ``known``.
    """
    with Reloading(config=account(), token="") as running:
        _cache(running.url, **LOGIN, BUCKET="known").set("key", 1)
        running.reload(account("disabled"))
        yield running.url
        process.close()


@pytest.mark.parametrize("bucket", ["known", "never opened"])
@pytest.mark.parametrize("row", [row for row in CACHE if row != "stats"])
def test_every_operation_returns_its_fail_open_result_while_jetstream_is_switched_off(
    call: Call, switched_off: str, row: str, bucket: str
) -> None:
    options = {**LOGIN, "BUCKET": bucket.replace(" ", "_"), "FAIL_OPEN": True}
    assert CACHE[row].away == _called(call, _cache(switched_off, **options), row)


@pytest.mark.parametrize("row", [row for row in CACHE if CACHE[row].asks])
def test_every_operation_raises_without_fail_open_while_jetstream_is_switched_off(
    call: Call, switched_off: str, row: str
) -> None:
    with pytest.raises(NotServed, match="Enable JetStream for the account"):
        _called(call, _cache(switched_off, **LOGIN, BUCKET="known"), row)


@pytest.fixture(scope="module")
def forbidden() -> Iterator[str]:
    """Yield the URL of a server that has withdrawn the permission to publish anything."""
    with Reloading(config=account(), token="") as running:
        _cache(running.url, **LOGIN).set("key", 1)
        running.reload(account(permissions='publish: { deny: [">"] }'))
        yield running.url
        process.close()


@pytest.mark.parametrize("row", [row for row in CACHE if row != "stats"])
def test_every_operation_returns_its_fail_open_result_while_permissions_are_withdrawn(
    call: Call, forbidden: str, row: str
) -> None:
    found = _called(call, _cache(forbidden, **LOGIN, FAIL_OPEN=True), row)
    assert CACHE[row].away == found


@pytest.mark.parametrize("row", ["get_or_set a function", "update"])
def test_a_users_function_is_called_once(call: Call, unreachable_url: str, row: str) -> None:
    calls = []

    def function(*args: Any) -> int:
        calls.append(args)
        return 1

    operation = CACHE[row]
    cache = _cache(unreachable_url, FAIL_OPEN=True)
    assert call(cache, operation.method, "key", function, **operation.kwargs) == 1
    assert len(calls) == 1


@pytest.mark.parametrize("row", ["get_or_set", "update"])
def test_a_users_error_is_not_swallowed(call: Call, unreachable_url: str, row: str) -> None:
    def function(*_: Any) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call(_cache(unreachable_url, FAIL_OPEN=True), row, "key", function)


def test_an_error_of_the_caller_is_raised_despite_fail_open(
    call: Call, unreachable_url: str
) -> None:
    with pytest.raises(TypeError, match="timeout"):
        call(_cache(unreachable_url, FAIL_OPEN=True), "set", "key", 1, "soon")


# Sessions ------------------------------------------------------------------------------------


class Sessions(SessionStore):
    """A session store on a given cache that counts the session keys it tries."""

    def __init__(self, cache: NatsCache) -> None:
        super().__init__()
        self._cache = cache
        self.tried = 0

    def _get_new_session_key(self) -> str:
        self.tried += 1
        return super()._get_new_session_key()  # type: ignore[misc,no-any-return]

    async def _aget_new_session_key(self) -> str:
        self.tried += 1
        return await super()._aget_new_session_key()  # type: ignore[misc,no-any-return]

    def start(self, call: Call) -> None:
        self["cart"] = 1
        if call is _sync:
            self.save()
        else:
            asyncio.run(self.asave())


def test_creating_a_session_fails_without_trying_other_keys(
    call: Call, unreachable_url: str
) -> None:
    sessions = Sessions(_cache(unreachable_url, FAIL_OPEN=True))
    with pytest.raises(NotSent):
        sessions.start(call)
    assert sessions.tried == 1


def test_creating_a_session_on_a_full_bucket_fails_without_trying_other_keys(
    call: Call, make_cache: MakeCache
) -> None:
    cache = make_cache(OPTIONS={"FAIL_OPEN": True, "EVICT": False, "MAX_ENTRIES": 1})
    cache.set("other", 1)
    sessions = Sessions(cache)
    with pytest.raises(BucketFull):
        sessions.start(call)
    assert sessions.tried == 1


@pytest.mark.parametrize(
    "key", ["sessions", "django.contrib.sessions.cached_dbab", "locks.cacheab", 5]
)
def test_add_returns_false_for_keys_that_are_not_cache_sessions(
    call: Call, unreachable_url: str, key: Any
) -> None:
    assert call(_cache(unreachable_url, FAIL_OPEN=True), "add", key, 1) is False
