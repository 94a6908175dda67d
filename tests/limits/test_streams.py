"""The streams of limits and quotas, made from the entry of an alias."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise
from typing import Any

import pytest
from django.test import override_settings

from django_nats.client.counters.config import CounterConfig
from django_nats.conf.counters import CounterSettings, counter_settings
from django_nats.conf.limit_streams import HORIZONS, limit_stream, quota_stream
from django_nats.limits import Limit
from tests.counters.conftest import Configure

NANOSECONDS = 10**9
DAY = 86_400


def settings(**options: Any) -> CounterSettings:
    entry = {"LOCATION": "nats://127.0.0.1:4222", **options}
    with override_settings(NATS_COUNTERS={"default": entry}):
        return counter_settings("default")


@pytest.mark.parametrize(
    ("seconds", "stream"),
    [
        (1, "COUNTERS_LIMITS_MINUTE"),
        (60, "COUNTERS_LIMITS_MINUTE"),
        (61, "COUNTERS_LIMITS_HOUR"),
        (3600, "COUNTERS_LIMITS_HOUR"),
        (3601, "COUNTERS_LIMITS_DAY"),
        (DAY, "COUNTERS_LIMITS_DAY"),
        (DAY + 1, "COUNTERS_LIMITS_LONG"),
        (366 * DAY, "COUNTERS_LIMITS_LONG"),
    ],
)
def test_a_window_is_counted_by_the_stream_of_its_horizon(seconds: int, stream: str) -> None:
    assert limit_stream(settings(), seconds).stream == stream


@pytest.mark.parametrize("horizon", HORIZONS)
def test_a_stream_keeps_counters_for_twice_its_longest_window(horizon: Any) -> None:
    for make in (limit_stream, quota_stream):
        document = make(settings(), horizon.seconds).stream_config()
        assert document["max_age"] == 2 * horizon.seconds * NANOSECONDS


@pytest.mark.parametrize("deadline", [1, 10, 3000])
@pytest.mark.parametrize("make", [limit_stream, quota_stream])
def test_the_server_accepts_how_long_ids_are_remembered(make: Any, deadline: int) -> None:
    made = settings(DEADLINE=deadline, MAX_AGE=3 * deadline)
    for horizon in HORIZONS:
        document = make(made, horizon.seconds).stream_config()
        assert document["duplicate_window"] <= document["max_age"]


def test_limits_are_in_memory_and_quotas_in_a_file() -> None:
    for storage in ("file", "memory"):
        made = settings(STORAGE=storage)
        assert limit_stream(made, 60).storage == "memory"
        assert quota_stream(made, 3600).storage == "file"


def test_what_else_an_alias_says_holds_for_its_limits() -> None:
    made = settings(
        STREAM="web",
        PREFIX="acme.counters",
        REPLICAS=3,
        READS="leader",
        PLACEMENT={"CLUSTER": "eu"},
        JS_DOMAIN="hub",
        METADATA={"team": "web"},
        REQUEST_TIMEOUT=0.5,
    )
    config = limit_stream(made, 60)
    assert (config.stream, config.prefix) == (
        "web_LIMITS_MINUTE",
        "acme.counters_limits_minute",
    )
    changed = {
        *("stream", "prefix", "storage", "history", "max_age", "deadline", "description"),
        "is_timed",
    }
    for field in fields(CounterConfig):
        if field.name not in changed:
            assert getattr(config, field.name) == getattr(made.stream, field.name), field.name


def test_what_is_only_for_counters_is_left_out() -> None:
    made = settings(MAX_BYTES="1MiB", HISTORY=64, SOURCES=["EU"])
    config = limit_stream(made, 60)
    assert (config.max_bytes, config.history, config.sources) == (None, 1, ())
    assert quota_stream(made, 3600).max_bytes is None


@pytest.mark.parametrize("timeout", [None, 0.05, 30.0])
def test_the_timeout_of_a_limit_does_not_change_its_stream(timeout: float | None) -> None:
    config = limit_stream(settings(), 60, timeout)
    assert config.stream_config() == limit_stream(settings(), 60).stream_config()
    assert config.request_timeout == (timeout or settings().stream.request_timeout)


def test_limits_with_other_timeouts_share_a_stream(configure: Configure) -> None:
    configure(DEADLINE=40)
    limits = [Limit(f"of {timeout} s", "1/h", timeout=timeout) for timeout in (10.0, 40.0)]
    assert [each.hit("a").allowed for each in limits] == [True, True]
    assert [each.hit("a").allowed for each in limits] == [False, False]


def test_the_subjects_of_no_two_streams_overlap() -> None:
    made = settings()
    prefixes = [made.stream.prefix]
    for make in (limit_stream, quota_stream):
        prefixes += [make(made, each.seconds).prefix for each in HORIZONS]
    for one, other in pairwise(sorted(f"{each}." for each in prefixes)):
        assert not other.startswith(one)
