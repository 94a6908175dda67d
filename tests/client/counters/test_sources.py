"""The breakdown and lag of a sum's sources, from replies of a server."""

from __future__ import annotations

from typing import Any

import pytest

from django_nats.client.counters.config import SourceConfig
from django_nats.client.counters.sources import SourceLag, breakdown, lags_of

HERE = SourceConfig("COUNTERS", "counters")
EU = SourceConfig("COUNTERS", "eu", "$JS.eu.API")
ACCOUNT = SourceConfig("COUNTERS", "counters", "from_us.API", "deliver.us")
ALONE = SourceConfig("ASIA", "asia", "$JS.asia.API")

# Names with hashes, as a server made them.
EU_ON_SERVER = "COUNTERS:oOHpeRwJ"
US_ON_SERVER = "US:Su6DK0Jv"


def test_a_unique_name_is_shown_without_its_place() -> None:
    us = SourceConfig("US", "us", "$JS.us.API")
    reported = f'{{"{US_ON_SERVER}":{{"us.k":"5"}},"EU":{{"eu.k":"-2"}}}}'
    assert breakdown(reported, [us, SourceConfig("EU", "eu")]) == {"US": 5, "EU": -2}


def test_names_that_are_not_unique_are_shown_with_their_place() -> None:
    reported = f'{{"COUNTERS":{{"counters.k":"1"}},"{EU_ON_SERVER}":{{"eu.k":"2"}}}}'
    assert breakdown(reported, [HERE, EU, ACCOUNT]) == {"COUNTERS": 1, "COUNTERS@eu": 2}
    # Only sources that have counted are listed.
    assert breakdown(f'{{"{EU_ON_SERVER}":{{"eu.k":"2"}}}}', [HERE, EU]) == {"COUNTERS@eu": 2}


def test_a_former_source_has_the_servers_name() -> None:
    assert breakdown(f'{{"{US_ON_SERVER}":{{"us.k":"5"}}}}', [HERE]) == {US_ON_SERVER: 5}


def test_parts_of_one_stream_are_added_up() -> None:
    parts = [SourceConfig("EU", "eu.de"), SourceConfig("EU", "eu.fr")]
    assert breakdown('{"EU":{"eu.de.k":"1","eu.fr.k":"2"}}', parts) == {"EU": 3}


def lag_of(**reported: Any) -> SourceLag:
    (lag,) = lags_of({"sources": [{"name": "ASIA", "lag": 0, "active": 1, **reported}]}, [ALONE])
    return lag


def test_a_lag_has_messages_seconds_and_an_error() -> None:
    assert lag_of(lag=3, active=500_000_000) == SourceLag("ASIA", 3, 0.5, None)
    assert lag_of(active=-1) == SourceLag("ASIA", 0, None, "it has not been reached yet")
    silent = lag_of(active=12_345_000_000)
    assert silent == SourceLag("ASIA", 0, 12.345, "no sign of life for 12 s")
    assert lag_of(active=10_000_000_000).error is None


@pytest.mark.parametrize("active", [-1, 1, 60_000_000_000])
def test_the_error_of_the_server_takes_precedence(active: int) -> None:
    error = {"code": 500, "err_code": 10228, "description": "stalled on flow control"}
    assert lag_of(active=active, error=error).error == "stalled on flow control"


def test_lags_are_sorted_by_name() -> None:
    reported = [
        {"name": "COUNTERS", "lag": 0, "active": 0, "external": {"api": "from_us.API"}},
        {"name": "COUNTERS", "lag": 0, "active": 0, "external": {"api": "$JS.eu.API"}},
        {"name": "ASIA", "lag": 0, "active": 0},
        {"name": "COUNTERS", "lag": 0, "active": 0},
    ]
    found = lags_of({"sources": reported}, [ACCOUNT, EU, HERE])
    names = ["ASIA", "COUNTERS", "COUNTERS@eu", "COUNTERS@from_us"]
    assert [each.name for each in found] == names
    assert lags_of({}, []) == []
