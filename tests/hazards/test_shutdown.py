"""The interpreter ends at once and says nothing, whatever the bridge is in the middle of."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable

import pytest

from django_nats.cache import NatsCache
from django_nats.devserver import NatsServer
from tests.hazards.conftest import MakeOwn
from tests.support.proxy import Proxy
from tests.support.scripts import Ended, run_script

Script = Callable[..., Ended]
Trouble = Callable[[NatsServer], None]

_GO = """
print("ready", flush=True)
sys.stdin.readline()
"""
# A project's own function at exit, which gives daemon threads the time to be heard.
_LINGER = """
import atexit, time
from django_nats.client import bridge
atexit.unregister(bridge._at_exit)
atexit.register(time.sleep, 0.3)
atexit.register(bridge._at_exit)
"""
_DAEMONS = """
import asyncio, threading

def use(number):
    while True:
        cache.set(f"key-{number}", number)
        cache.get(f"key-{number}")

async def ause():
    while True:
        await cache.aset("key", "value")
        await cache.aget("key")

for number in range(8):
    threading.Thread(target=use, args=(number,), daemon=True).start()
for _ in range(4):
    threading.Thread(target=asyncio.run, args=(ause(),), daemon=True).start()
"""


def _at_once_and_silently(ended: Ended) -> None:
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.seconds < 12  # a timeout would be 20


def test_after_use(script: Script) -> None:
    _at_once_and_silently(script('cache.set("key", 1)' + _GO))


def test_in_the_middle_of_use(script: Script) -> None:
    """Daemon threads go on to the very end: an error of theirs would be printed."""
    _at_once_and_silently(script('cache.set("key", 1)' + _LINGER + _DAEMONS + _GO))


def test_from_asyncio_run(script: Script) -> None:
    ended = script(
        """
import asyncio

async def main():
    await cache.aset("key", 1)
    waiting = [asyncio.ensure_future(cache.aget("key")) for _ in range(100)]
"""
        + "".join(f"    {line}\n" for line in _GO.strip().splitlines())
        + """
    print(await cache.aget("key"))

asyncio.run(main())
"""
    )
    _at_once_and_silently(ended)
    assert ended.stdout == "1"


@pytest.mark.parametrize("idle", [True, False], ids=["idle", "in use"])
def test_with_a_stopped_server(script: Script, own_server: NatsServer, idle: bool) -> None:
    daemons = "" if idle else _LINGER + _DAEMONS
    ended = script('cache.set("key", 1)' + daemons + _GO, when_ready=lambda _: own_server.pause())
    # What is in flight is given a moment, in which it turns out that nobody is there.
    _at_once_and_silently(ended)


def test_with_more_in_flight_than_the_server_takes(script: Script, own_server: NatsServer) -> None:
    ended = script(
        """
import threading, time
from django_nats.devserver.files import eventually
cache.set("key", 1)
print("ready", flush=True)
sys.stdin.readline()
big = {str(each): "x" * 500_000 for each in range(60)}
for _ in range(3):
    threading.Thread(target=cache.set_many, args=(big,), daemon=True).start()
assert eventually(lambda: cache.session.waiters, time.monotonic() + 30)
""",
        when_ready=lambda _: own_server.pause(),
    )
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.seconds < 12


def test_with_a_dead_server(script: Script, own_server: NatsServer) -> None:
    ended = script(
        'import logging; logging.disable()\ncache.set("key", 1)' + _GO,
        when_ready=lambda _: own_server.kill(),
    )
    _at_once_and_silently(ended)


def test_while_connecting_to_nobody(script: Script) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        ended = script(
            'import threading\nthreading.Thread(target=cache.get, args=("key",), daemon=True)'
            ".start()" + _GO,
            location=f"nats://127.0.0.1:{silent.getsockname()[1]}",
        )
    _at_once_and_silently(ended)


def test_in_atexit_after_the_bridge_has_closed(script: Script) -> None:
    """The main thread is told, and is not kept waiting."""
    ended = script(
        """
import atexit
from django_nats.exceptions import NotSent

def late():
    for _ in range(3):
        try:
            cache.get("key")
        except NotSent as error:
            print(error)

atexit.unregister(late)
from django_nats.client import bridge
atexit.unregister(bridge._at_exit)
atexit.register(late)
atexit.register(bridge._at_exit)
cache.set("key", 1)
"""
        + _GO
    )
    _at_once_and_silently(ended)
    assert ended.stdout.splitlines() == ["The interpreter is shutting down"] * 3


@pytest.mark.parametrize("use", ["cache.get('key')", "asyncio.run(cache.aget('key'))"])
def test_in_a_daemon_thread_that_atexit_waits_for(script: Script, use: str) -> None:
    """As those do that send metrics or reports from a queue."""
    ended = script(
        f"""
import asyncio, atexit, threading
from django_nats.client import bridge
from django_nats.exceptions import NotSent

told = threading.Event()

def work():
    told.wait()
    for _ in range(20):
        try:
            {use}
        except NotSent as error:
            print(error)

def drain():
    told.set()
    worker.join()

worker = threading.Thread(target=work, daemon=True)
worker.start()
atexit.unregister(bridge._at_exit)
atexit.register(drain)
atexit.register(bridge._at_exit)
cache.set("key", 1)
"""
        + _GO
    )
    _at_once_and_silently(ended)
    assert ended.stdout.splitlines() == ["The interpreter is shutting down"] * 20


def test_while_a_name_server_takes_its_time(own_server: NatsServer) -> None:
    ended = run_script(
        """
import socket, threading
asked = threading.Event()

def never(*args, **kwargs):
    asked.set()
    threading.Event().wait()

socket.getaddrinfo = never
threading.Thread(target=cache.get, args=("key",), daemon=True).start()
assert asked.wait(5)
"""
        + _GO,
        *("nats://slow.example:4222", "own", own_server.token),
        loop="asyncio",  # uvloop does not ask Python
    )
    _at_once_and_silently(ended)


def test_sigterm(script: Script) -> None:
    def terminate(process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGTERM)

    ended = script('cache.set("key", 1)' + _DAEMONS + _GO, when_ready=terminate)
    assert (ended.status, ended.stderr) == (-signal.SIGTERM, "")
    assert ended.seconds < 12


def test_writes_in_flight_arrive(
    script: Script, own_server: NatsServer, make_own: MakeOwn, own: NatsCache
) -> None:
    with Proxy(own_server.port) as slow:
        ended = script(
            """
import threading, time
from django_nats.devserver.files import eventually
cache.get("key")
print("ready", flush=True)
sys.stdin.readline()
threads = [
    threading.Thread(target=cache.set, args=(f"late-{each}", "x" * 10_000), daemon=True)
    for each in range(100)
]
for thread in threads:
    thread.start()
assert eventually(lambda: cache.session.waiters == 100, time.monotonic() + 30)
""",
            location=slow.url,
            when_ready=lambda _: setattr(slow, "delay", 0.3),
        )
    assert (ended.status, ended.stderr) == (0, "")
    assert len(own.get_many([f"late-{each}" for each in range(100)])) == 100
