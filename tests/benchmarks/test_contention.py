"""The contention benchmark detects lost increments."""

from __future__ import annotations

import pytest
from django.core.cache.backends.locmem import LocMemCache

pytest.importorskip("psutil")

from tests.benchmarks.questions import contention


def test_a_lost_increment_is_detected() -> None:
    cache = LocMemCache("contention", {})
    contention.begin(cache)
    cache.incr("hot")
    contention.confirm(cache, total=1)
    with pytest.raises(ValueError, match="1 after 2 increments"):
        contention.confirm(cache, total=2)
