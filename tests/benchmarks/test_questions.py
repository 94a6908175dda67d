"""Nobody is fast by being wrong: every operation's results are checked while it is measured."""

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
    """Does nothing in one method, after some honest calls, and answers as if it had."""

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
def test_a_call_that_lies_is_found_out(cache: Any, operation: str) -> None:
    cell = {**CELL, "operation": operation, "seconds": 0.001, "threads": 1}
    assert sync.single(cache, **cell)["p50_us"] > 0
    cache.clear()
    lie_about(operation)
    with pytest.raises(ValueError, match="wrong result"):
        sync.single(cache, **cell)


@pytest.mark.parametrize("operation", ["set", "set_many"])
def test_so_is_one_that_stores_only_at_first(cache: Any, operation: str) -> None:
    cell = {**CELL, "operation": operation, "seconds": 0.001, "threads": 1}
    lie_about(operation)

    def again_and_again() -> None:
        for _ in range(10):  # one in seven times what was stored at first is the last, too
            LyingCache.honest = 1
            sync.single(cache, **cell)

    with pytest.raises(ValueError, match="wrong result"):
        again_and_again()


@pytest.mark.parametrize("operation", ["get", "set", "incr"])
def test_so_are_calls_from_threads(cache: Any, operation: str) -> None:
    cell = {**CELL, "operation": operation, "seconds": 0.001, "threads": 2}
    assert sync.threaded(cache, **cell)["rate"] > 0
    cache.clear()
    lie_about(operation)
    with pytest.raises(ValueError, match="wrong result"):
        sync.threaded(cache, **cell)


# The others are made of these in Django's own caches.
@pytest.mark.parametrize("operation", ["get", "miss", "set"])
def test_so_are_those_of_coroutines(cache: Any, operation: str) -> None:
    cell = {**CELL, "operation": operation, "seconds": 0.001, "concurrency": 2}
    assert async_.concurrent(cache, **cell)["rate"] > 0
    cache.clear()
    lie_about(operation)
    with pytest.raises(ValueError, match="wrong result"):
        async_.concurrent(cache, **cell)
