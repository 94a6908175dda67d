"""Many processes use one counter at the same time."""

from __future__ import annotations

import json
import sys

from django.conf import settings

from django_nats.counters import Counter, Counters
from tests.support.process import run_together

SEATS = 1000
BUYERS = 16
MOST = 100
"""The most seats per buyer, so that the first buyer to start does not get all of them."""

_BUYER = """
import json, sys
from django.conf import settings
settings.configure(SECRET_KEY="only-for-tests", NATS_COUNTERS=json.loads(sys.argv[1]))
from django_nats.counters import Counter
seats, sold = Counter("seats"), 0
seats.value()
print("ready", flush=True)
sys.stdin.readline()
while seats > 0 and sold < int(sys.argv[2]):
    sold += seats.take()
print(sold)
"""


def test_take_sells_exactly_a_thousand_seats_to_many_processes(counters: Counters) -> None:
    seats = Counter("seats")
    seats.set(SEATS)
    command = [sys.executable, "-c", _BUYER, json.dumps(settings.NATS_COUNTERS), str(MOST)]
    sold = [int(printed) for printed in run_together(command, BUYERS)]
    assert sum(sold) == SEATS
    assert sum(each > 0 for each in sold) >= SEATS / MOST
    assert seats == 0
