"""The benchmarks check the result of every operation while they measure it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache

from tests.benchmarks.questions import async_, sync

CELL = {"size": 100, "keys": 3}
METHODS = {"miss": "get"}
OPERATIONS = ("get", "miss", "set", "add", "incr", "delete", "get_many", "set_many")


class LyingCache(LocMemCache):
    """A cache of which one method stops working after some calls, but answers as if it worked."""

    method = ""
    answer: Any = None
    honest = 0

    def get(self, *args: Any, **kwargs: Any) -> Any:
        return self._lie("get", *args, **kwargs)

    def set(self, *args: Any, **kwargs: Any) -> Any:
        return self._lie("set", *args, **kwargs)

    def add(self, *args: Any, **kwargs: Any) -> Any:
        return self._lie("add", *args, **kwargs)

    def incr(self, *args: Any, **kwargs: Any) -> Any:
        return self._lie("incr", *args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        return self._lie("delete", *args, **kwargs)

    def get_many(self, *args: Any, **kwargs: Any) -> Any:
        return self._lie("get_many", *args, **kwargs)

    def set_many(self, *args: Any, **kwargs: Any) -> Any:
        return self._lie("set_many", *args, **kwargs)

    def _lie(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if method == type(self).method:
            type(self).honest -= 1
            if type(self).honest < 0:
                return type(self).answer
        return getattr(super(), method)(*args, **kwargs)


LIES = {
    "get": "x" * 100,
    "miss": "x",
    "set": None,
    "add": True,
    "incr": 1,
    "delete": True,
    "get_many": {},
    "set_many": [],
}


@pytest.fixture
def cache(settings: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    settings.CACHES = {"default": {"BACKEND": f"{__name__}.LyingCache", "LOCATION": __name__}}
    yield caches["default"]
    LyingCache.method, LyingCache.answer, LyingCache.honest = "", None, 0
    caches["default"].clear()


def lie_about(operation: str) -> None:
    LyingCache.method = METHODS.get(operation, operation)
    LyingCache.answer = LIES[operation]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_wrong_result_is_detected(cache: Any, operation: str) -> None:
    cell = {**CELL, "operation": operation, "seconds": 0.001, "threads": 1}
    assert sync.single(cache, **cell)["p50_us"] > 0
    cache.clear()
    lie_about(operation)
    with pytest.raises(ValueError, match="wrong result"):
        sync.single(cache, **cell)


@pytest.mark.parametrize("operation", ["set", "set_many"])
def test_a_cache_that_stops_storing_is_detected(cache: Any, operation: str) -> None:
    cell = {**CELL, "operation": operation, "seconds": 0.001, "threads": 1}
    lie_about(operation)

    def measure_repeatedly() -> None:
        for _ in range(10):  # in one of seven runs the first stored value is also the last
            LyingCache.honest = 1
            sync.single(cache, **cell)

    with pytest.raises(ValueError, match="wrong result"):
        measure_repeatedly()


@pytest.mark.parametrize("operation", ["get", "set", "incr"])
def test_a_wrong_result_in_threads_is_detected(cache: Any, operation: str) -> None:
    cell = {**CELL, "operation": operation, "seconds": 0.001, "threads": 2}
    assert sync.threaded(cache, **cell)["rate"] > 0
    cache.clear()
    lie_about(operation)
    with pytest.raises(ValueError, match="wrong result"):
        sync.threaded(cache, **cell)


# Django's own caches build the other async methods from these.
@pytest.mark.parametrize("operation", ["get", "miss", "set"])
def test_a_wrong_result_in_coroutines_is_detected(cache: Any, operation: str) -> None:
    cell = {**CELL, "operation": operation, "seconds": 0.001, "concurrency": 2}
    assert async_.concurrent(cache, **cell)["rate"] > 0
    cache.clear()
    lie_about(operation)
    with pytest.raises(ValueError, match="wrong result"):
        async_.concurrent(cache, **cell)
