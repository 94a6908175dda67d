"""Many processes use one quota at the same time, and some of them are killed."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack

import pytest
from django.conf import settings

from django_nats.counters import Counters
from django_nats.limits import Quota
from tests.support.process import run_together

PROCESSES = 8
LIMIT = 300
REFUNDS = 200

_PRELUDE = """
import json, random, sys
from django.conf import settings
settings.configure(SECRET_KEY="only-for-tests", NATS_COUNTERS=json.loads(sys.argv[1]))
from django_nats.limits import Quota
quota = Quota("exports", limit=300, per="year")
quota.usage("acme")
print("ready", flush=True)
"""
_USER = """
sys.stdin.readline()
ones = sum(1 for _ in range(100) if quota.use("acme"))
print(json.dumps([ones, sum(n for n in [1, 2, 3] * 33 if quota.use("globex", n))]))
"""
_REFUNDER = """
ids = json.load(sys.stdin)
random.shuffle(ids)
for id in ids:
    print(id, quota.refund(id), flush=True)
"""


def command(code: str) -> list[str]:
    return [sys.executable, "-c", _PRELUDE + code, json.dumps(settings.NATS_COUNTERS)]


def quota() -> Quota:
    return Quota("exports", limit=LIMIT, per="year")


@pytest.mark.once
def test_many_processes_use_exactly_as_much_as_the_limit_says(counters: Counters) -> None:
    used = [json.loads(printed) for printed in run_together(command(_USER), PROCESSES)]
    assert sum(ones for ones, _ in used) == LIMIT
    # While a larger use is given back, a smaller one may be refused that would have had room.
    left = quota().remaining("globex")
    assert left is not None
    assert sum(mixed for _, mixed in used) + left == LIMIT
    assert quota().use("globex", left) if left else not quota().use("globex")


def start(stack: ExitStack) -> subprocess.Popen[str]:
    """Start a process that refunds the ids it reads, and end it with the stack."""
    process = subprocess.Popen(
        command(_REFUNDER), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    stack.enter_context(process)
    stack.callback(process.kill)
    return process


@pytest.mark.faults
def test_processes_that_are_killed_while_they_refund_never_refund_a_use_twice(
    counters: Counters,
) -> None:
    ids = [quota().use("acme").id for _ in range(REFUNDS)]
    # Each is killed after some refunds, and the last one comes to its end.
    lives = [3, 10, 25, 50, 90, None]
    refunded: list[str] = []
    with ExitStack() as stack:
        processes = [start(stack) for _ in lives]
        for process in processes:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write(json.dumps(ids))  # type: ignore[union-attr]
            process.stdin.close()  # type: ignore[union-attr]
        for process, life in zip(processes, lives, strict=True):
            lines = []
            for line in process.stdout:  # type: ignore[union-attr]
                lines.append(line.split())
                if len(lines) == life:
                    process.kill()
            refunded += [line[0] for line in lines if line[1:] == ["True"]]
    assert len(refunded) == len(set(refunded))
    # A killed process may have begun one refund that nobody finishes.
    lost = quota().usage("acme").used
    assert 0 <= lost < len(lives)
    assert REFUNDS - lost >= len(refunded) >= REFUNDS - 2 * (len(lives) - 1)
    assert not any(quota().refund(id) for id in ids)
