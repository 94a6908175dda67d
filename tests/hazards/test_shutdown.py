"""The interpreter exits at once and prints nothing, whatever the background thread is doing."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from django_nats.cache import NatsCache
from django_nats.devserver import NatsServer
from tests.servers import eventually
from tests.support.proxy import Proxy
from tests.support.scripts import PATIENCE, Ended, run_script

Script = Callable[..., Ended]
Trouble = Callable[[NatsServer], None]

_GO = """
print("ready", flush=True)
sys.stdin.readline()
"""
# A stopped server does not count as lost, which would be logged.
_WITHOUT_PINGS = """
from django_nats.client.transport import connection
connection.PING_INTERVAL_S = 60.0
"""
# An atexit function that waits, so that an error in a daemon thread would be printed.
_LINGER = """
import atexit, time
from django_nats.client import process as client_process
atexit.unregister(client_process._close_at_exit)
atexit.register(time.sleep, 0.3)
atexit.register(client_process._close_at_exit)
"""
_DAEMONS = """
import asyncio, threading
from django_nats.client.transport import loop
loop._LINGER_S = 3000.0  # the interpreter may be slow to exit


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


def _assert_exits_silently(ended: Ended) -> None:
    # It did not wait for a timeout: PATIENCE is shorter than one.
    assert (ended.status, ended.stderr) == (0, "")


def test_exits_silently_after_use(script: Script) -> None:
    _assert_exits_silently(script('cache.set("key", 1)' + _GO))


def test_exits_silently_while_daemon_threads_use_the_cache(script: Script) -> None:
    """Daemon threads run until the process ends; an error in one would be printed."""
    _assert_exits_silently(script('cache.set("key", 1)' + _LINGER + _DAEMONS + _GO))


def test_exits_silently_after_asyncio_run(script: Script) -> None:
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
    _assert_exits_silently(ended)
    assert ended.stdout == "1"


@pytest.mark.parametrize("idle", [True, False], ids=["idle", "in use"])
def test_exits_silently_while_the_server_is_stopped(
    script: Script, own_server: NatsServer, idle: bool
) -> None:
    daemons = "" if idle else _LINGER + _DAEMONS
    ended = script(
        _WITHOUT_PINGS + 'cache.set("key", 1)' + daemons + _GO,
        when_ready=lambda _: own_server.pause(),
    )
    # The client gives requests in flight a moment, in which no answer comes.
    _assert_exits_silently(ended)


def test_exits_silently_with_more_in_flight_than_the_socket_takes(
    script: Script, own_server: NatsServer
) -> None:
    ended = script(
        _WITHOUT_PINGS
        + """
import threading, time
from django_nats.devserver.files import eventually
cache.set("key", 1)
print("ready", flush=True)
sys.stdin.readline()
big = {str(each): "x" * 500_000 for each in range(60)}
for _ in range(3):
    threading.Thread(target=cache.set_many, args=(big,), daemon=True).start()
assert eventually(lambda: cache.session.waiters, time.monotonic() + 60)
""",
        when_ready=lambda _: own_server.pause(),
    )
    _assert_exits_silently(ended)


def test_exits_silently_after_the_server_died(script: Script, own_server: NatsServer) -> None:
    ended = script(
        'import logging; logging.disable()\ncache.set("key", 1)' + _GO,
        when_ready=lambda _: own_server.kill(),
    )
    _assert_exits_silently(ended)


def test_exits_silently_while_connecting_to_a_silent_address(script: Script) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        ended = script(
            'import threading\nthreading.Thread(target=cache.get, args=("key",), daemon=True)'
            ".start()" + _GO,
            location=f"nats://127.0.0.1:{silent.getsockname()[1]}",
        )
    _assert_exits_silently(ended)


def test_calls_in_atexit_after_the_close_are_refused_at_once(script: Script) -> None:
    """The calls raise NotSent in the main thread without waiting."""
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
from django_nats.client import process as client_process
atexit.unregister(client_process._close_at_exit)
atexit.register(late)
atexit.register(client_process._close_at_exit)
cache.set("key", 1)
"""
        + _GO
    )
    _assert_exits_silently(ended)
    assert ended.stdout.splitlines() == ["The interpreter is shutting down"] * 3


@pytest.mark.parametrize("use", ["cache.get('key')", "asyncio.run(cache.aget('key'))"])
def test_calls_in_a_daemon_thread_that_atexit_joins_are_refused_at_once(
    script: Script, use: str
) -> None:
    """Libraries that send metrics or error reports from a queue have such threads."""
    ended = script(
        f"""
import asyncio, atexit, threading
from django_nats.client import process as client_process
from django_nats.exceptions import NotSent

draining = threading.Event()

def work():
    draining.wait()
    for _ in range(20):
        try:
            {use}
        except NotSent as error:
            print(error)

def drain():
    draining.set()
    worker.join()

worker = threading.Thread(target=work, daemon=True)
worker.start()
atexit.unregister(client_process._close_at_exit)
atexit.register(drain)
atexit.register(client_process._close_at_exit)
cache.set("key", 1)
"""
        + _GO
    )
    _assert_exits_silently(ended)
    assert ended.stdout.splitlines() == ["The interpreter is shutting down"] * 20


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_exits_silently_during_a_slow_name_lookup(own_server: NatsServer, loop: str) -> None:
    ended = run_script(
        """
import socket, threading
asked = threading.Event()

def never(*args, **kwargs):
    asked.set()
    threading.Event().wait()

socket.getaddrinfo = never
threading.Thread(target=cache.get, args=("key",), daemon=True).start()
assert asked.wait(60)
"""
        + _GO,
        *("nats://slow.example:4222", "own", own_server.token),
        loop=loop,
    )
    _assert_exits_silently(ended)


def test_closing_while_a_change_feed_opens_does_not_deadlock(
    script: Script, own_server: NatsServer
) -> None:
    """The feed asks the server from the loop's thread, which must not wait for itself."""
    with Proxy(own_server.port) as slow:
        ended = script(
            """
import threading
from django_nats.client import process as client_process
from tests.support.following import Following, Recorder

client_process._CLOSE_S = 600  # seconds, so that a deadlock is not hidden

class Noting(Recorder):
    def position(self, stream):
        opening.set()
        return super().position(stream)

cache.set("key", 1)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(3):
    opening = threading.Event()
    following = Following(cache, recorder=Noting(), wait=False)
    assert opening.wait(60)
    client_process.close()  # its first answer comes during the last flush
    assert not following.watcher.started
    cache.set("key", 2)
    assert cache.get("key") == 2
""",
            location=slow.url,
            when_ready=lambda _: setattr(slow, "delay", 0.1),
        )
    assert (ended.status, ended.stderr) == (0, "")


def test_sigterm_ends_the_process_silently(script: Script) -> None:
    def terminate(process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGTERM)

    ended = script('cache.set("key", 1)' + _DAEMONS + _GO, when_ready=terminate)
    assert (ended.status, ended.stderr) == (-signal.SIGTERM, "")


def test_writes_in_flight_at_exit_arrive(
    script: Script, own_server: NatsServer, own: NatsCache, tmp_path: Path
) -> None:
    """None of the writes is answered before the process begins to exit."""
    ends = tmp_path / "ends"
    with Proxy(own_server.port) as proxy, ThreadPoolExecutor(1) as pool:

        def go_on() -> None:
            assert eventually(ends.exists, PATIENCE)
            proxy.thaw()

        going_on = pool.submit(go_on)
        ended = script(
            f"ENDS = {str(ends)!r}"
            """
import atexit, pathlib, threading, time
from django_nats.client import process as client_process
from django_nats.client.transport import connection
from django_nats.devserver.files import eventually
client_process._CLOSE_S = 60.0
connection.PING_INTERVAL_S = 60.0
atexit.register(pathlib.Path(ENDS).touch)  # runs before the client's own atexit function
cache.get("key")
print("ready", flush=True)
sys.stdin.readline()
threads = [
    threading.Thread(target=cache.set, args=(f"late-{each}", "x" * 10_000), daemon=True)
    for each in range(100)
]
for thread in threads:
    thread.start()
assert eventually(lambda: cache.session.waiters == 100, time.monotonic() + 60)
""",
            location=proxy.url,
            when_ready=lambda _: proxy.freeze(),
        )
        going_on.result()
    assert (ended.status, ended.stderr) == (0, "")
    assert len(own.get_many([f"late-{each}" for each in range(100)])) == 100


def test_a_first_use_at_exit_works_or_raises_not_sent(script: Script) -> None:
    """Python 3.12 starts no thread at exit: the call raises NotSent and does not crash."""
    ended = script(
        """
import atexit
from django_nats.exceptions import NotSent

def use():
    try:
        cache.set("key", 1)
        print(cache.get("key"))
    except NotSent as error:
        print("NotSent")

atexit.register(use)
"""
        + _GO
    )
    assert ended.stdout in ("1", "NotSent"), ended
    assert ended.status == 0
    assert "Traceback" not in ended.stderr
