"""A signal handler uses the cache, or raises, in the middle of an update of the copies."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from django_nats.cache import NatsCache
from django_nats.client.kv.copies import Copies
from tests.conftest import MakeCache
from tests.support.near_load import soon


@contextmanager
def handling(handler: Callable[[], object]) -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, lambda number, frame: handler())
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def interrupt(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Raise the signal during the next call of a method of Copies."""
    original = getattr(Copies, method)

    def interrupted(self: Copies, *arguments: object) -> object:
        monkeypatch.setattr(Copies, method, original)
        try:
            return original(self, *arguments)
        finally:
            signal.raise_signal(signal.SIGUSR1)

    monkeypatch.setattr(Copies, method, interrupted)


@pytest.fixture
def cache(make_cache: MakeCache) -> NatsCache:
    cache = make_cache(OPTIONS={"NEAR_CACHE": {}})
    cache.set("served", 1)
    assert soon(lambda: is_served(cache))
    return cache


def is_served(cache: NatsCache) -> bool:
    assert cache.near is not None
    before = cache.near.hits
    cache.get("served")
    return cache.near.hits > before


@pytest.mark.parametrize("method", ["_leave", "_install"])
def test_a_value_written_by_a_handler_is_read_afterwards(
    cache: NatsCache, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The handler waits for the loop, so the loop must not wait for the interrupted update."""
    cache.set("key", "old")

    def handler() -> None:
        cache.set("key", "new")
        assert cache.get("key") == "new"

    with handling(handler):
        interrupt(monkeypatch, method)
        cache.set("key", "older")
    assert cache.get("key") == "new"
    assert soon(lambda: is_served(cache))
    assert cache.get("key") == "new"


class Interruption(Exception):
    pass


@pytest.mark.parametrize("method", ["_leave", "_install"])
def test_an_interrupted_update_leaves_nothing_stale(
    cache: NatsCache, make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    cache.set("key", "old")
    other = make_cache(OPTIONS={"BUCKET": cache.config.bucket.name, "NAME": "another process"})

    def handler() -> None:
        raise Interruption

    with handling(handler):
        interrupt(monkeypatch, method)
        with pytest.raises(Interruption):
            cache.set("key", "own")
    assert cache.get("key") == "own"
    other.set("key", "theirs")
    assert soon(lambda: cache.get("key") == "theirs")
    assert soon(lambda: is_served(cache))
    assert cache.get("key") == "theirs"
