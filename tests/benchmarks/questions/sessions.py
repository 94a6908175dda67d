"""How long does a request wait for its session, which it loads, changes and saves?

django_nats.sessions and Django's ``cache`` engine are compared on the same cache. Each request has
a session object of its own, and requests take turns with the sessions of several visitors.
"""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

from ..contestants import DJANGO_REDIS, DJANGO_REDIS_CACHE, OURS, SESSIONS, Contestant
from ..lab import Lab
from ..measuring import Meter, expect, percentiles, run, value
from ..results import Cell

NAME = "sessions"
TITLE = "How long does a request wait for its session?"

SYNC, ASYNC = "load and save", "aload and asave"

_DJANGOS_ENGINE = "django.contrib.sessions.backends.cache"
_VISITORS = 20
_LEAST_REQUESTS = 10
_STORED = {
    "_auth_user_id": "1",
    "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
    "_auth_user_hash": value(64),
    "cart": [{"article": number, "pieces": 1} for number in range(3)],
}


def cells(quick: bool) -> list[dict[str, Any]]:
    return [{"operation": operation} for operation in (SYNC, ASYNC)]


def takes_part(contestant: Contestant, cell: Cell) -> bool:
    return contestant.name in (SESSIONS, OURS, DJANGO_REDIS_CACHE, DJANGO_REDIS)


def measure(lab: Lab, contestant: Contestant, cell: Cell) -> dict[str, float]:
    engine = "django_nats.sessions" if contestant.name == SESSIONS else _DJANGOS_ENGINE
    return lab.call(contestant, f"{__name__}:requests", engine=engine, seconds=lab.span, **cell)


# In the worker -------------------------------------------------------------------------------


def requests(cache: Any, *, engine: str, operation: str, seconds: float) -> dict[str, float]:
    """Time requests, one after the other."""
    store = import_module(engine).SessionStore
    keys = [_new(store) for _ in range(_VISITORS)]
    if operation == ASYNC:
        run(_arequests(store, keys, seconds / 5))
        meter, times = run(_arequests(store, keys, seconds))
    else:
        _requests(store, keys, seconds / 5)
        meter, times = _requests(store, keys, seconds)
    last = keys[(len(times) - 1) % _VISITORS]
    expect(store(last).load() == {**_STORED, "visit": len(times) - 1}, "a session was not saved")
    return {**percentiles(times), **meter.figures(len(times))}


def _new(store: Any) -> str:
    session = store()
    session.update(_STORED)
    session.save()
    return str(session.session_key)


def _requests(store: Any, keys: list[str], seconds: float) -> tuple[Meter, list[int]]:
    clock, meter, times = time.perf_counter_ns, Meter(), list[int]()
    end = clock() + int(seconds * 1e9)
    with meter:
        while len(times) < _LEAST_REQUESTS or clock() < end:
            begun = clock()
            session = store(keys[len(times) % _VISITORS])
            user = session["_auth_user_id"]
            session["visit"] = len(times)
            session.save()
            times.append(clock() - begun)
            expect(user == "1", f"a session has the user {user!r}")
    return meter, times


async def _arequests(store: Any, keys: list[str], seconds: float) -> tuple[Meter, list[int]]:
    clock, meter, times = time.perf_counter_ns, Meter(), list[int]()
    end = clock() + int(seconds * 1e9)
    with meter:
        while len(times) < _LEAST_REQUESTS or clock() < end:
            begun = clock()
            session = store(keys[len(times) % _VISITORS])
            user = await session.aget("_auth_user_id")
            await session.aset("visit", len(times))
            await session.asave()
            times.append(clock() - begun)
            expect(user == "1", f"a session has the user {user!r}")
    return meter, times
