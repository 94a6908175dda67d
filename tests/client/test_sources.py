"""What the server says of a sum's sources, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from django_nats.client.counterconfig import SourceConfig
from django_nats.client.sources import SourceLag, breakdown, lags_of

HERE = SourceConfig("COUNTERS", "counters")
EU = SourceConfig("COUNTERS", "eu", "$JS.eu.API")
ACCOUNT = SourceConfig("COUNTERS", "counters", "from_us.API", "deliver.us")
ALONE = SourceConfig("ASIA", "asia", "$JS.asia.API")

# The hashes are a server's own.
EU_TOLD = "COUNTERS:oOHpeRwJ"
US_TOLD = "US:Su6DK0Jv"


def test_a_name_that_is_the_only_one_needs_no_place() -> None:
    us = SourceConfig("US", "us", "$JS.us.API")
    told = f'{{"{US_TOLD}":{{"us.k":"5"}},"EU":{{"eu.k":"-2"}}}}'
    assert breakdown(told, [us, SourceConfig("EU", "eu")]) == {"US": 5, "EU": -2}


def test_names_that_are_not_the_only_ones_have_their_place() -> None:
    told = f'{{"COUNTERS":{{"counters.k":"1"}},"{EU_TOLD}":{{"eu.k":"2"}}}}'
    assert breakdown(told, [HERE, EU, ACCOUNT]) == {"COUNTERS": 1, "COUNTERS@eu": 2}
    # Whoever has counted so far.
    assert breakdown(f'{{"{EU_TOLD}":{{"eu.k":"2"}}}}', [HERE, EU]) == {"COUNTERS@eu": 2}


def test_who_is_no_longer_among_the_sources_is_told_as_the_server_does() -> None:
    assert breakdown(f'{{"{US_TOLD}":{{"us.k":"5"}}}}', [HERE]) == {US_TOLD: 5}


def test_what_a_stream_adds_by_several_names_is_added_up() -> None:
    parts = [SourceConfig("EU", "eu.de"), SourceConfig("EU", "eu.fr")]
    assert breakdown('{"EU":{"eu.de.k":"1","eu.fr.k":"2"}}', parts) == {"EU": 3}


def lag_of(**told: Any) -> SourceLag:
    (lag,) = lags_of({"sources": [{"name": "ASIA", "lag": 0, "active": 1, **told}]}, [ALONE])
    return lag


def test_lags() -> None:
    assert lag_of(lag=3, active=500_000_000) == SourceLag("ASIA", 3, 0.5, None)
    assert lag_of(active=-1) == SourceLag("ASIA", 0, None, "it has not been reached yet")
    silent = lag_of(active=12_345_000_000)
    assert silent == SourceLag("ASIA", 0, 12.345, "nothing was heard of it for 12 s")
    assert lag_of(active=10_000_000_000).error is None


@pytest.mark.parametrize("active", [-1, 1, 60_000_000_000])
def test_the_server_knows_best_what_is_wrong(active: int) -> None:
    error = {"code": 500, "err_code": 10228, "description": "stalled on flow control"}
    assert lag_of(active=active, error=error).error == "stalled on flow control"


def test_lags_by_name() -> None:
    told = [
        {"name": "COUNTERS", "lag": 0, "active": 0, "external": {"api": "from_us.API"}},
        {"name": "COUNTERS", "lag": 0, "active": 0, "external": {"api": "$JS.eu.API"}},
        {"name": "ASIA", "lag": 0, "active": 0},
        {"name": "COUNTERS", "lag": 0, "active": 0},
    ]
    found = lags_of({"sources": told}, [ACCOUNT, EU, HERE])
    names = ["ASIA", "COUNTERS", "COUNTERS@eu", "COUNTERS@from_us"]
    assert [each.name for each in found] == names
    assert lags_of({}, []) == []
