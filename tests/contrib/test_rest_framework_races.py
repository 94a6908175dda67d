"""Requests that arrive together, at DRF's throttles and at ours, on a real server."""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.conf import settings
from django.http import HttpRequest

pytest.importorskip("rest_framework")

from rest_framework import throttling

from django_nats.contrib.rest_framework import SimpleRateThrottle
from tests.conftest import MakeCache
from tests.support.process import run_together
from tests.support.scripts import PATIENCE

TOGETHER = 8


class _OneKey:
    rate = "3/min"

    def get_cache_key(self, request: Any, view: Any) -> str:
        return "everyone"

    def timer(self) -> float:
        return 1_000_000.0


def allowed_together(throttle: type[Any]) -> int:
    """Return how many of several requests are allowed, each in a thread of its own."""
    begin = threading.Barrier(TOGETHER, timeout=PATIENCE)

    def request(_: int) -> bool:
        begin.wait()
        return throttle().allow_request(HttpRequest(), None)  # type: ignore[no-any-return]

    with ThreadPoolExecutor(TOGETHER) as threads:
        return sum(threads.map(request, range(TOGETHER)))


def test_drfs_throttle_allows_more_than_its_rate_if_requests_arrive_together(
    make_cache: MakeCache,
) -> None:
    shared = make_cache()
    all_have_read = threading.Barrier(TOGETHER, timeout=PATIENCE)

    class Cache:
        def get(self, key: str, default: Any) -> Any:
            history = shared.get(key, default)
            all_have_read.wait()
            return history

        def set(self, key: str, history: Any, timeout: int) -> None:
            shared.set(key, history, timeout)

    class Theirs(_OneKey, throttling.SimpleRateThrottle):
        cache = Cache()

    assert allowed_together(Theirs) == TOGETHER


def test_ours_allows_exactly_its_rate_to_threads(counting: None) -> None:
    class Ours(_OneKey, SimpleRateThrottle):
        pass

    assert allowed_together(Ours) == 3


_CLIENT = """
import json, sys
from django.conf import settings
settings.configure(SECRET_KEY="only-for-tests", NATS_COUNTERS=json.loads(sys.argv[1]))
from django.http import HttpRequest
from django_nats.contrib.rest_framework import SimpleRateThrottle
class Throttle(SimpleRateThrottle):
    rate = "100/min"
    timer = lambda self: 1_000_000.0
    get_cache_key = lambda self, request, view: view
request = HttpRequest()
Throttle().allow_request(request, "warm-up")
print("ready", flush=True)
sys.stdin.readline()
print(sum(Throttle().allow_request(request, "everyone") for _ in range(100)))
"""


def test_ours_allows_exactly_its_rate_to_processes(counting: None) -> None:
    command = [sys.executable, "-c", _CLIENT, json.dumps(settings.NATS_COUNTERS)]
    assert sum(map(int, run_together(command, 4))) == 100
