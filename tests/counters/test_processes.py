"""Many processes at one counter."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from django.conf import settings

from django_nats.counters import Counter, Counters

SEATS = 1000
BUYERS = 16

_BUYER = """
import json, sys
from django.conf import settings
settings.configure(SECRET_KEY="only-for-tests", NATS_COUNTERS=json.loads(sys.argv[1]))
from django_nats.counters import Counter
seats, sold = Counter("seats"), 0
seats.value()
print("ready", flush=True)
sys.stdin.readline()
while seats > 0:
    sold += seats.take()
print(sold)
"""


@pytest.mark.timeout(120)
def test_a_thousand_seats_are_sold_exactly(counters: Counters) -> None:
    seats = Counter("seats")
    seats.set(SEATS)
    command = [sys.executable, "-c", _BUYER, json.dumps(settings.NATS_COUNTERS)]
    buyers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(BUYERS)
    ]
    try:
        for buyer in buyers:
            assert buyer.stdout is not None
            assert buyer.stdout.readline() == "ready\n"
        for buyer in buyers:
            assert buyer.stdin is not None
            buyer.stdin.write("go\n")
            buyer.stdin.flush()
        sold = [int(buyer.communicate(timeout=60)[0]) for buyer in buyers]
    finally:
        for buyer in buyers:
            buyer.kill()
            buyer.communicate()
    assert sum(sold) == SEATS
    assert sum(each > 0 for each in sold) > 1, "nobody raced"
    assert seats == 0
