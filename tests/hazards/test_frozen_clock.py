"""The package measures real time, even if freezegun or time_machine freezes the clock."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import django_nats
from django_nats.devserver import NatsServer
from tests.support.scripts import Ended, run_script

_PACKAGE = Path(django_nats.__file__).parent

# Each defines freeze(when, tick=False), a context manager.
_LIBRARIES = {
    "freezegun": "from freezegun import freeze_time as freeze\n",
    "time_machine": """
import time_machine
def freeze(when, tick=False):
    return time_machine.travel(when, tick=tick)
""",
}
_PRELUDE = """
import asyncio, socket, sys
from contextlib import nullcontext
first, second = "2012-01-14 03:21:34", "2031-05-06"

def set_up():
    from django.conf import settings
    location, bucket, token = sys.argv[1:]
    patience = {"CONNECT_TIMEOUT": 20.0, "REQUEST_TIMEOUT": 20.0}
    options = {"BUCKET": bucket, "TOKEN": token, **patience}
    backend = {"BACKEND": "django_nats.cache.NatsCache", "LOCATION": location}
    copies = {"KEYS": ["*"], "MAX_STALE": 20.0}
    settings.configure(
        SECRET_KEY="only-for-tests",
        USE_TZ=True,
        CACHES={
            "default": {**backend, "OPTIONS": options},
            "near": {**backend, "OPTIONS": {**options, "NEAR_CACHE": copies}},
        },
        NATS_COUNTERS={
            "default": {
                "LOCATION": location, "TOKEN": token, "STORAGE": "memory",
                "CONNECT_TIMEOUT": 20.0, "REQUEST_TIMEOUT": 20.0, "DEADLINE": 30.0,
                "FLUSH_INTERVAL": 0.05,
            }
        },
    )
    global cache, near, counters, NatsCache, drivers, Pause, Unavailable, eventually, monotonic
    from django.core.cache import cache, caches
    from django_nats.cache import NatsCache
    from django_nats.client import drivers
    from django_nats.client.protocol.steps import Pause
    from django_nats.counters import counters
    from django_nats.devserver.files import eventually
    from django_nats.exceptions import Unavailable
    from django_nats.realtime import monotonic
    near = caches["near"]

def soon(condition):
    assert eventually(condition, monotonic() + 40)
    return True
"""
_GO = """
set_up()
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(params=sorted(_LIBRARIES))
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(server: NatsServer, library: str, code: str, loop: str = "asyncio", go: str = _GO) -> Ended:
    """Run a program that can freeze time with a library."""
    prelude = _LIBRARIES[library] + _PRELUDE + go
    arguments = (server.url, "own", server.token)
    return run_script(code, *arguments, loop=loop, prelude=prelude)


_IMPORTED_WHILE_FROZEN = _GO.replace("set_up()", "with freeze(first): set_up()")
_CONNECTED_BEFORE = _GO.replace("set_up()", "set_up(); cache.get('key'); counters.incr('n', 0)")


@pytest.mark.parametrize(
    ("go", "loop"),
    [(_IMPORTED_WHILE_FROZEN, "asyncio"), (_CONNECTED_BEFORE, "uvloop")],
    ids=["imported while frozen", "connected before"],
)
def test_values_survive_a_change_of_the_frozen_time(
    own_server: NatsServer, library: str, loop: str, go: str
) -> None:
    ended = run(
        own_server,
        library,
        """
async def use_it(value):
    await cache.aset("async", value, 300)
    return await cache.aget("async")

for moment, tick in (first, False), (second, False), (first, True), (second, True):
    with freeze(moment, tick=tick):
        print(cache.get("kept"), (cache.ttl("kept") or 0) > 200, cache.add("kept", "x"), end=" ")
        print(near.get("kept"), cache.get("n"), (cache.ttl("n") or 0) > 200)
        cache.set("kept", moment, 300)
        cache.add("n", 1, 300)
        assert cache.get_many(["kept", "n"])["kept"] == moment
        assert cache.get_or_set("kept", "x") == moment
        assert 200 < cache.ttl("kept") <= 300
        assert asyncio.run(use_it(moment)) == moment
        cache.incr("n")
        counters.incr("n")
""",
        loop,
        go,
    )
    old, new = "2012-01-14 03:21:34", "2031-05-06"
    assert ended.stdout.splitlines() == [
        "None False True x None False",
        f"{old} True False {old} 2 True",
        f"{new} True False {new} 3 True",
        f"{old} True False {old} 4 True",
    ], ended
    assert (ended.status, ended.stderr) == (0, "")


@pytest.mark.once
def test_timeouts_and_expiry_run_in_real_time_while_the_clock_is_frozen(
    own_server: NatsServer, library: str, loop: str
) -> None:
    ended = run(
        own_server,
        library,
        """
import os, signal
def pause_briefly():
    yield Pause(0.05)

def refusal(cache):
    try:
        return cache.get("key")
    except Unavailable:
        return "refused"

with freeze(first):
    cache.set("short", 1, 0.3)
    print("expires:", soon(lambda: not cache.has_key("short")))

    near.set("near", 1)
    print("is followed:", soon(lambda: near.get("near") == 1 and near.near.state == "whole"))
    proven = near.near._copies.fresh_until
    print("is proven again:", soon(lambda: near.near._copies.fresh_until > proven))

    counters.incr_later("later")
    print("is published:", soon(lambda: counters.get_many(["later"]) == {"later": 1}))

    asyncio.run(drivers.arun(cache.session, pause_briefly()))
    print("pauses end")

    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = "nats://127.0.0.1:%d" % mute.getsockname()[1]
        print("connecting:", refusal(NatsCache(address, {"OPTIONS": {"CONNECT_TIMEOUT": 0.3}})))

    options = {"BUCKET": "own", "TOKEN": sys.argv[3], "CONNECT_TIMEOUT": 20.0}
    impatient = NatsCache(sys.argv[1], {"OPTIONS": {**options, "REQUEST_TIMEOUT": 0.3}})
    cache.set("key", "value")
    assert soon(lambda: refusal(impatient) == "value")
    os.kill(SERVER, signal.SIGSTOP)
    print("asking:", soon(lambda: refusal(impatient) == "refused"))
    os.kill(SERVER, signal.SIGCONT)
    print("is back:", soon(lambda: refusal(impatient) == "value"))
""".replace("SERVER", str(own_server.pid)),
        loop,
    )
    assert ended.stdout.splitlines() == [
        "expires: True",
        "is followed: True",
        "is proven again: True",
        "is published: True",
        "pauses end",
        "connecting: refused",
        "asking: True",
        "is back: True",
    ], ended
    assert ended.status == 0


@pytest.mark.once
def test_expire_at_uses_the_frozen_clock(own_server: NatsServer, library: str) -> None:
    ended = run(
        own_server,
        library,
        """
from datetime import datetime, timedelta
from django.test import override_settings
from django.utils import timezone

for moment in (first, second):
    with freeze(moment):
        cache.set("aware", 1); cache.set("naive", 1); cache.set("past", 1)
        later = timezone.now() + timedelta(minutes=5)
        print(cache.expire_at("aware", later), 200 < cache.ttl("aware") <= 330, end=" ")
        naive = timezone.make_naive(later)
        print(cache.expire_at("naive", naive), 200 < cache.ttl("naive") <= 330, end=" ")
        print(cache.expire_at("past", later - timedelta(hours=1)), cache.has_key("past"), end=" ")
        with override_settings(USE_TZ=False, TIME_ZONE="Asia/Tokyo"):
            cache.set("local", 1)
            local = timezone.now() + timedelta(minutes=5)
            print(cache.expire_at("local", local), 200 < cache.ttl("local") <= 330)
""",
    )
    assert ended.stdout.splitlines() == ["True True True True True False True True"] * 2, ended
    assert (ended.status, ended.stderr) == (0, "")


def test_every_module_takes_the_time_from_realtime() -> None:
    """freezegun replaces these functions in every module that imports them."""
    replaced = {"time", "monotonic", "perf_counter", "process_time"}
    replaced |= {f"{name}_ns" for name in replaced}
    found = []
    for file in sorted(_PACKAGE.rglob("*.py")):
        if file == _PACKAGE / "realtime.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            names: set[str] = set()
            if isinstance(node, ast.ImportFrom) and node.module == "time":
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                names = {node.attr} if node.value.id == "time" else set()
            found += [f"{file.relative_to(_PACKAGE)}: {name}" for name in names & replaced]
    assert not found, "take monotonic from django_nats.realtime"
