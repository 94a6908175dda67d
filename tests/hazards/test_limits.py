"""Limits across forks, threads and event loops, and while leaders die."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from django.test import override_settings

from django_nats.client import process
from django_nats.devserver import NatsServer
from django_nats.limits import Limit
from tests.conftest import PATIENT
from tests.servers import eventually
from tests.support.cluster import Cluster
from tests.support.scripts import FORK, run_script

MOST = 20_000
"""Hits that are let through: more than before a leader dies, and few enough to be used up."""

_PRELUDE = """
import sys
from django.conf import settings
alias = {"LOCATION": sys.argv[1], "TOKEN": sys.argv[3], "DEADLINE": 3000.0}
alias |= {"CONNECT_TIMEOUT": 3000.0, "REQUEST_TIMEOUT": 3000.0}
settings.configure(SECRET_KEY="only-for-tests", NATS_COUNTERS={"default": alias})
from django_nats.limits import Limit
limit = Limit("api", "1000/366d", algorithm="fixed")
"""


def test_a_forked_child_hits_the_limits_of_its_parent(loop: str, own_server: NatsServer) -> None:
    ended = run_script(
        FORK
        + """
limit.hit("a")
go()
pid = fork(lambda: limit.hit("a", 10))
assert succeeded(pid)
print(limit.hit("a", 100).remaining)
""",
        *(own_server.url, "", own_server.token),
        loop=loop,
        prelude=_PRELUDE,
    )
    assert (ended.status, ended.stdout, ended.stderr) == (0, str(1000 - 111), "")


def test_threads_and_event_loops_are_let_through_exactly_as_often_as_the_limit_says(
    own_server: NatsServer,
) -> None:
    alias = {"LOCATION": own_server.url, "TOKEN": own_server.token, **PATIENT, "DEADLINE": 30.0}
    limit = Limit("api", "100/366d")

    def in_a_thread() -> int:
        return sum(limit.hit("a").allowed for _ in range(50))

    def in_a_loop() -> int:
        async def hits() -> int:
            decisions = await asyncio.gather(*(limit.ahit("a") for _ in range(50)))
            return sum(each.allowed for each in decisions)

        return asyncio.run(hits())

    with override_settings(NATS_COUNTERS={"default": alias}), ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(each) for each in (in_a_thread, in_a_loop) * 4]
        assert sum(each.result() for each in calls) == 100


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_no_more_are_let_through_while_a_leader_dies() -> None:
    with Cluster(3) as cluster:
        alias = {
            "LOCATION": cluster.urls,
            "TOKEN": cluster.token,
            "REPLICAS": 3,
            "CONNECT_TIMEOUT": 60.0,
            "REQUEST_TIMEOUT": 2.0,
        }
        limit = Limit("api", f"{MOST}/366d", fail_open=False)
        with override_settings(NATS_COUNTERS={"default": alias}), ThreadPoolExecutor(4) as pool:
            assert eventually(lambda: limit.hit("probe").error is None, 240)
            ended: list[bool] = []
            calls = [pool.submit(partial(_hit_until, limit, ended)) for _ in range(4)]
            try:
                assert eventually(lambda: limit.peek("a").remaining < MOST)  # type: ignore[operator]
                cluster.leader(_stream_of(limit)).kill()
                assert eventually(lambda: limit.hit("probe").error is None, 240)
                # With a new leader, the limit is soon used up.
                assert eventually(lambda: limit.peek("a").remaining == 0, 240)
            finally:
                ended.append(True)
            admitted = sum(each.result() for each in calls)
        process.close()
    # A hit whose answer was lost has been counted, but not let through.
    assert 0 < admitted <= MOST


def _hit_until(limit: Limit, ended: list[bool]) -> int:
    admitted = 0
    while not ended:
        admitted += limit.hit("a").allowed
    return admitted


def _stream_of(limit: Limit) -> str:
    _, places = limit._places(limit._fixed_rates or ())
    return places[0].stream.config.stream
