"""Many processes hit one limit at the same time."""

from __future__ import annotations

import json
import sys

import pytest
from django.conf import settings

from django_nats.counters import Counters
from django_nats.limits.algorithms import ALGORITHMS
from tests.support.process import run_together

PROCESSES = 16
HITS = 1000
LIMIT = 500
NOW = 1_800_000_000.0

_CLIENT = """
import json, sys
from django.conf import settings
settings.configure(SECRET_KEY="only-for-tests", NATS_COUNTERS=json.loads(sys.argv[1]))
from django_nats.client import drivers
from django_nats.limits import Limit
now, hits = float(sys.argv[3]), int(sys.argv[4])
limit = Limit("api", "500/h", algorithm=sys.argv[2], timeout=60)
limit.peek("someone")
print("ready", flush=True)
sys.stdin.readline()
steps = [limit._hit("someone", 1, None, now) for _ in range(hits)]
decisions = [drivers.run(limit.session, each) for each in steps]
assert not any(each.error for each in decisions)
print(sum(each.allowed for each in decisions))
"""


@pytest.mark.once
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_many_processes_are_let_through_exactly_as_often_as_the_limit_says(
    counters: Counters, algorithm: str
) -> None:
    arguments = [json.dumps(settings.NATS_COUNTERS), algorithm, str(NOW), str(HITS)]
    command = [sys.executable, "-c", _CLIENT, *arguments]
    let_through = [int(printed) for printed in run_together(command, PROCESSES)]
    assert sum(let_through) == LIMIT
