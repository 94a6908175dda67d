"""The round trips of a request's session, counted by a proxy between client and server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import MakeCache
from tests.support.proxy import Proxy
from tests.support.sessions import DJANGO_CACHE, SESSIONS, Request

Open = Callable[..., Request]


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def asynchronous(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def session_key(asynchronous: bool) -> Any:
    return Request(asynchronous=asynchronous).set(user=1).save().key


@pytest.fixture(autouse=True)
def proxied(make_cache: MakeCache, use_cache: MakeCache, proxy: Proxy, settings: Any) -> None:
    settings.SESSION_ENGINE = SESSIONS
    make_cache().set("other", 1)  # the bucket is deleted through this cache
    use_cache(location=proxy.url).get("other")


@pytest.mark.parametrize(("engine", "expected"), [(SESSIONS, 2), (DJANGO_CACHE, 3)])
def test_a_request_that_changes_its_session_takes_two_round_trips(
    proxy: Proxy, asynchronous: bool, settings: Any, engine: str, expected: int
) -> None:
    settings.SESSION_ENGINE = engine
    key = session_key(asynchronous)
    before = proxy.round_trips
    Request(key, asynchronous=asynchronous).load().set(cart=1).save()
    assert proxy.round_trips - before == expected


@pytest.mark.parametrize(
    ("round_trips", "use"),
    [
        pytest.param(1, lambda request: request.load(), id="load"),
        pytest.param(2, lambda request: request.load().save(), id="touch"),
        pytest.param(3, lambda request: request.load().save().save(), id="saved twice"),
        pytest.param(3, lambda request: request.load().call("flush"), id="flush"),
        pytest.param(4, lambda request: request.load().call("cycle_key"), id="cycle_key"),
    ],
)
def test_every_use_takes_its_round_trips(
    proxy: Proxy, asynchronous: bool, round_trips: int, use: Callable[[Request], object]
) -> None:
    key = session_key(asynchronous)
    before = proxy.round_trips
    use(Request(key, asynchronous=asynchronous))
    assert proxy.round_trips - before == round_trips


def test_creating_a_session_takes_one(proxy: Proxy, asynchronous: bool) -> None:
    session_key(asynchronous)
    before = proxy.round_trips
    session_key(asynchronous)
    assert proxy.round_trips - before == 1


def test_a_conflict_takes_two_more(proxy: Proxy, asynchronous: bool) -> None:
    key = session_key(asynchronous)
    one, another = (Request(key, asynchronous=asynchronous).load() for _ in range(2))
    one.set(a=1).save()
    before = proxy.round_trips
    another.set(b=1).save()
    assert proxy.round_trips - before == 3
