"""The probe of a lane, whose answer a caller's thread may read."""

from __future__ import annotations

import asyncio
import threading

import pytest

from django_nats.client.protocol.steps import Lane, Request
from django_nats.client.protocol.wire import Reply
from django_nats.client.transport import lane_circuits
from django_nats.client.transport.lane_circuits import LaneCircuits
from django_nats.client.transport.waiter import Waiter


class ReadByACaller:
    """A session whose answers a caller's thread reads."""

    connection = object()

    def submit_probe(self, waiter: Waiter) -> None:
        def read() -> None:
            thread = threading.Thread(target=waiter.answer, args=(0, Reply(b"", b"{}")))
            thread.start()
            thread.join()

        asyncio.get_running_loop().call_soon(read)  # by then the probe waits


async def test_the_answer_to_a_probe_is_noted_on_the_loops_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An asyncio.Event that another thread sets may leave its waiter asleep for good."""
    threads: list[int] = []

    class Noting(asyncio.Event):
        def set(self) -> None:
            threads.append(threading.get_ident())
            super().set()

    monkeypatch.setattr(asyncio, "Event", Noting)
    monkeypatch.setattr(lane_circuits, "_PROBE_PAUSE_S", 0)
    lane = Lane("led", 1.0)
    lane.probe = Request(lane, "led")
    circuits = LaneCircuits(ReadByACaller())
    circuits.open(lane, "led has no leader")
    circuits.probe(lane)
    await circuits._probes[lane]
    assert lane.fault is None
    assert threads == [threading.get_ident()]
