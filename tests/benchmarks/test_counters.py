"""The counter benchmarks check the totals of everything they measure."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.cache.backends.locmem import LocMemCache

pytest.importorskip("psutil")

from django_nats.counters import Counter, Counters
from django_nats.devserver import NatsServer
from tests.benchmarks import counting
from tests.benchmarks.questions import contention, counters, history
from tests.counters.conftest import PATIENT

HISTORY = 2


@pytest.fixture
def cache(own_server: NatsServer, settings: Any) -> counting.CounterCache:
    entry = {"LOCATION": own_server.url, "TOKEN": own_server.token, "STORAGE": "memory"}
    settings.NATS_COUNTERS = {"default": {**entry, "HISTORY": HISTORY, **PATIENT}}
    return counting.CounterCache("", {})


def count_nothing(*args: object) -> None:
    """Replace incr_later and count nothing."""


def test_a_counter_may_stand_in_for_a_cache(cache: counting.CounterCache) -> None:
    cache.set("hot", 7, None)
    contention.begin(cache)
    cache.incr("hot")
    contention.confirm(cache, total=1)
    with pytest.raises(ValueError, match="1 after 2 increments"):
        contention.confirm(cache, total=2)


@pytest.mark.parametrize("threads", [1, 2])
def test_count_later_detects_lost_increments(
    cache: counting.CounterCache, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):  # as in two rounds
        assert counters.count_later(cache, threads=threads, seconds=0.001)["rate"] > 0
    monkeypatch.setattr(Counter, "incr_later", count_nothing)
    with pytest.raises(ValueError, match="wrong result: 0 after"):
        counters.count_later(cache, threads=threads, seconds=0.001)


def test_read_objects_detects_unread_totals(
    cache: counting.CounterCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        assert counters.read_objects(cache, objects=3, seconds=0.001)["p50_us"] > 0
    monkeypatch.setattr(counters, "prefetch_counters", lambda objects: None)
    with pytest.raises(ValueError, match="wrong result: the objects do not have"):
        counters.read_objects(cache, objects=3, seconds=0.001)


def test_read_keys_detects_missing_values(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = LocMemCache("counters", {})
    assert counters.read_keys(cache, objects=3, seconds=0.001)["p50_us"] > 0
    monkeypatch.setattr(cache, "get_many", lambda keys: {})
    with pytest.raises(ValueError, match="wrong result"):
        counters.read_keys(cache, objects=3, seconds=0.001)


def test_history_counts_every_counter_past_its_history(cache: counting.CounterCache) -> None:
    figures = history.count(cache, names=3)
    assert figures["kept"] == pytest.approx(figures["past.rate"] / figures["before.rate"])
    totals = Counters().matching("page.*").values()
    assert len(totals) == 3
    assert min(totals) > HISTORY


def test_history_detects_uncounted_counters(
    cache: counting.CounterCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counters, "incr_later", count_nothing)
    with pytest.raises(ValueError, match="wrong result"):
        history.count(cache, names=3)
