"""How much memory do the counters of many keys take, and how fast do they come into being?

Each key of a limit is hit once, by tasks of one event loop. Every key has a counter of its own,
whose subject holds a hash of the key, and which the server keeps for two windows. The server is the
contestant's own, so that no memory that was used before is used again.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ..contestants import LIMIT, Contestant
from ..lab import JobFailed, Lab
from ..limiting import DAY_S, PATIENCE
from ..measuring import Meter, expect, run, server_memory
from ..results import Cell
from ..servers import start

NAME = "limit_keys"
TITLE = "How much memory do the counters of many keys take?"
ONCE = True

_TASKS = 100
_ENOUGH = 10_000  # keys: with fewer, memory that the server takes once would count


def cells(quick: bool) -> list[dict[str, Any]]:
    return [{"keys": 10**4 if quick else 10**6}]


def takes_part(contestant: Contestant, cell: Cell) -> bool:
    return contestant.name == LIMIT


def measure(lab: Lab, contestant: Contestant, cell: Cell) -> dict[str, float]:
    assert contestant.server is not None
    with start([contestant.server]) as (servers, left_out):
        if left_out:
            raise JobFailed(left_out[0].why)
        with Lab(servers, span=lab.span, quick=lab.quick) as own:
            return own.call(contestant, f"{__name__}:fill", **cell)


# In the worker -------------------------------------------------------------------------------


def fill(cache: Any, *, keys: int) -> dict[str, float]:
    """Hit each key once. Measure the counters' size: resident memory, and the server's report."""
    from django_nats.limits import Limit

    limit = Limit("benchmark", (100, DAY_S), timeout=PATIENCE)
    limit.hit("first")
    resident, (counted, reported) = server_memory(), _stored(limit)
    expect(counted == 1, f"{counted} counters after the first hit")

    async def hit_all() -> Meter:
        numbers = iter(range(keys))

        async def hit_some() -> None:
            for number in numbers:
                decision = await limit.ahit(number)
                if decision.remaining != 99:
                    expect(False, f"a first hit gave {decision!r:.100}")

        await limit.ahit("first")  # connects this loop
        meter = Meter()
        with meter:
            await asyncio.gather(*(hit_some() for _ in range(_TASKS)))
        return meter

    figures = run(hit_all()).figures(keys)
    counted, reported_now = _stored(limit)
    expect(counted == keys + 1, f"{counted} counters of {keys + 1} keys")
    if keys >= _ENOUGH:
        figures["resident_bytes"] = (server_memory() - resident) / keys
        figures["reported_bytes"] = (reported_now - reported) / keys
    return figures


def _stored(limit: Any) -> tuple[int, int]:
    """Return the number of counters and their size in bytes, as reported by the server."""
    from django_nats.client import drivers, process
    from django_nats.conf.limit_streams import limit_stream
    from django_nats.counters import counters

    settings = counters.settings
    stream = process.counter_stream(
        settings.connection, limit_stream(settings, DAY_S, PATIENCE)
    ).stream
    document = drivers.run(limit.session, stream.opening.info(stream.lanes.reopening))
    assert document is not None
    return document["state"]["num_subjects"], document["state"]["bytes"]
