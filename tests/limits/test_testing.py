"""What the helpers for a project's own tests do for limits."""

from __future__ import annotations

import pytest

from django_nats.counters import Counters
from django_nats.counters.testing import zeroed_counters
from django_nats.devserver import NatsServer
from django_nats.limits import Limit
from tests.servers import streams


@pytest.fixture
def own(server: NatsServer) -> dict[str, object]:
    return {"LOCATION": server.url, "TOKEN": server.token}


def test_every_test_finds_nothing_counted(counters: Counters, own: dict[str, object]) -> None:
    limit = Limit("api", "1/d")
    for _ in range(2):
        with zeroed_counters(own):
            assert [limit.hit().allowed for _ in range(3)] == [True, False, False]


def test_the_streams_of_limits_are_deleted_at_the_end_of_a_test(
    server: NatsServer, counters: Counters, own: dict[str, object]
) -> None:
    before = streams(server)
    with zeroed_counters(own) as zeroed:
        assert Limit("api", "1/m", "5/d").hit()
        zeroed.incr("home")
        assert len(streams(server)) == len(before) + 3
    assert streams(server) == before
