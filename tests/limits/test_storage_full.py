"""Limits when there is no room for more counters: of the account, or of a stream with MAX_BYTES."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from django_nats.client import process
from django_nats.devserver import NatsServer
from django_nats.exceptions import BucketFull
from django_nats.limits import Decision, Limit
from tests.counters.conftest import Configure
from tests.servers import request
from tests.support.reloading import LOGIN, Reloading, account

MOST_KEYS = 20_000
"""More keys than there is room for in any of these tests."""


@pytest.fixture
def small(configure: Configure) -> Iterator[Reloading]:
    """Yield the server of the default alias, whose account has little memory."""
    with Reloading(config=account("{ max_mem: 100K }"), token="") as server:
        configure(on=server, TOKEN=None, **LOGIN)
        yield server
        process.close()


def fill(limit: Limit) -> Decision:
    """Hit one key after the other until one is not counted, and return the decision about that."""
    decisions = (limit.hit(f"filling {number}") for number in range(MOST_KEYS))
    return next(decision for decision in decisions if decision.error is not None)


@pytest.mark.parametrize("fail_open", [False, True])
def test_fail_open_decides_about_hits_that_there_is_no_room_to_count(
    small: Reloading, fail_open: bool
) -> None:
    limit = Limit("api", "5/m", fail_open=fail_open)
    for decision in (fill(limit), limit.hit("filling 0")):
        assert decision.allowed is fail_open
        assert isinstance(decision.error, BucketFull)


async def test_fail_open_decides_about_async_hits_as_well(small: Reloading) -> None:
    limit = Limit("api", "5/m", fail_open=True)
    for number in range(MOST_KEYS):
        decision = await limit.ahit(f"filling {number}")
        if decision.error is not None:
            break
    assert decision.allowed
    assert isinstance(decision.error, BucketFull)


def test_counters_can_be_read_and_reset_while_there_is_no_room(small: Reloading) -> None:
    limit = Limit("api", "5/h", fail_open=False)
    limit.hit("a", cost=3)
    fill(limit)
    assert limit.peek("a").remaining == 2
    limit.reset("a")
    assert limit.hit("a").remaining == 4


def test_hits_are_counted_again_once_there_is_room(
    small: Reloading, caplog: pytest.LogCaptureFixture
) -> None:
    limit = Limit("api", "5/h", fail_open=True)
    limit.hit("a", cost=3)
    fill(limit)
    for _ in range(5):
        assert limit.hit("a").allowed
    small.reload(account("{ max_mem: 10MB }"))
    assert limit.hit("a").remaining == 1
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert "hits are let through, and not counted" in warnings[0]
    assert "hits are counted again" in warnings[1]


def test_a_stream_with_max_bytes_forgets_the_keys_that_were_not_hit_for_the_longest_time(
    configure: Configure, own_server: NatsServer
) -> None:
    stream = configure(on=own_server).settings.stream.stream + "_LIMITS_HOUR"
    limit = Limit("api", "5/h", fail_open=False)
    limit.hit("a", cost=5)
    assert not limit.hit("a")
    config = request(own_server, f"$JS.API.STREAM.INFO.{stream}")["config"]
    assert isinstance(config, dict)
    answer = request(own_server, f"$JS.API.STREAM.UPDATE.{stream}", {**config, "max_bytes": 20_000})
    assert "error" not in answer
    assert all(limit.hit(f"filling {number}") for number in range(500))
    assert limit.peek("a").remaining == 5
    assert limit.peek("filling 499").remaining == 4
