"""Several processes use a new bucket or new counters on three replicas at the same time."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from django_nats.client import process as client_process
from tests.support.cluster import Cluster
from tests.support.process import run_together

pytestmark = [
    pytest.mark.faults,
    pytest.mark.xdist_group("test_cluster"),  # one cluster, on one worker
    pytest.mark.timeout(900),
]

PROCESSES = 4
CALLS = 25
"""Concurrent first calls of each process."""
PATIENCE = 120.0
"""Seconds; electing the first leader takes one second, or many on a busy machine."""

_PRELUDE = """
import asyncio, collections, json, sys
from django.conf import settings
target, calls = json.loads(sys.argv[1]), int(sys.argv[2])
settings.configure(SECRET_KEY="only-for-tests", NATS_COUNTERS={"default": target["counters"]})
from django_nats.cache import NatsCache
from django_nats.counters import counters
cache = NatsCache(*target["cache"])
print("ready", flush=True)
sys.stdin.readline()

async def begin(number):
    await asyncio.sleep(number / 50)  # some calls begin during the first election
    await call(number)

async def main():
    begun = (begin(number) for number in range(calls))
    results = await asyncio.gather(*begun, return_exceptions=True)
    return collections.Counter("ok" if each is None else repr(each) for each in results)

"""
_END = """
print(json.dumps(asyncio.run(main())))
"""
_SETS = """
async def call(number):
    await cache.aset(f"key-{number}", number)
"""
_GETS = """
async def call(number):
    assert await cache.aget(f"key-{number}") is None
"""
_INCREMENTS = """
async def call(number):
    await counters.aincr("total")
"""
_READS = """
async def call(number):
    assert await counters.aget_many(["a", "b"]) == {"a": 0, "b": 0}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as running:
        yield running
        client_process.close()


@pytest.mark.parametrize(
    "code", [_SETS, _GETS, _INCREMENTS, _READS], ids=["sets", "gets", "increments", "reads"]
)
def test_every_first_call_waits_for_the_first_leader(
    cluster: Cluster, code: str, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id
    common = {"TOKEN": cluster.token, "REPLICAS": 3, "CONNECT_TIMEOUT": PATIENCE}
    options = {**common, "REQUEST_TIMEOUT": PATIENCE, "BUCKET": name}
    counters = {**common, "REQUEST_TIMEOUT": PATIENCE, "STREAM": name, "PREFIX": name}
    target = {
        "cache": [cluster.urls, {"OPTIONS": options}],
        "counters": {**counters, "LOCATION": cluster.urls, "DEADLINE": PATIENCE},
    }
    command = [sys.executable, "-c", _PRELUDE + code + _END, json.dumps(target), str(CALLS)]
    outcomes = [json.loads(printed) for printed in run_together(command, PROCESSES)]
    assert outcomes == [{"ok": CALLS}] * PROCESSES
