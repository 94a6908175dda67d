"""The nats-py clients of connection() and run(): forks, exits, signals."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from django_nats.devserver import NatsServer
from tests.support.scripts import FORK, Ended, run_script

_PRELUDE = """
import asyncio, json, os, signal, sys, threading
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="only-for-tests",
    CACHES={"default": {"BACKEND": "django_nats.cache.NatsCache", "LOCATION": sys.argv[1],
                        "OPTIONS": {"TOKEN": sys.argv[2], "CONNECT_TIMEOUT": 3000.0,
                                    "REQUEST_TIMEOUT": 3000.0}}},
)
from django.core.cache import cache
from django_nats import connection, run

def sockets_to_server():
    port = int(sys.argv[1].rpartition(":")[2])
    with open("/proc/self/net/tcp") as table:
        inodes = {row.split()[9] for row in table if row.split()[2].endswith(f":{port:04X}")}
    links = []
    for each in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{each}"))
        except FileNotFoundError:
            pass
    return len({f"socket:[{inode}]" for inode in inodes} & set(links))

async def number(nc):
    return nc.client_id

async def echo(nc):
    async def answer(msg):
        await msg.respond(msg.data)
    sub = await nc.subscribe(f"echo.{os.getpid()}", cb=answer)
    reply = await nc.request(f"echo.{os.getpid()}", b"x", timeout=600)
    await sub.unsubscribe()
    return reply.data
"""

Script = Callable[..., Ended]


@pytest.fixture
def script(loop: str, own_server: NatsServer) -> Script:
    """Return a function that runs a program with ``run`` and ``connection``, and checks it."""

    def execute(code: str, expected: str = "", *, location: str = "", **kwargs: object) -> Ended:
        where = (location or own_server.url, own_server.token)
        ended = run_script(code, *where, loop=loop, prelude=_PRELUDE + FORK, **kwargs)  # type: ignore[arg-type]
        assert (ended.status, ended.stdout, ended.stderr) == (0, expected, "")
        return ended

    return execute


# Forks ---------------------------------------------------------------------------------------


def test_a_forked_child_opens_its_own_client_and_leaves_the_parents_alone(script: Script) -> None:
    script(
        """
mine = run("default", number)
assert sockets_to_server() == 1
go()

def child():
    assert sockets_to_server() == 0
    assert run("default", number) != mine
    assert run("default", echo) == b"x"
    assert sockets_to_server() == 1

for _ in range(3):
    assert succeeded(fork(child))
    assert run("default", number) == mine
    assert run("default", echo) == b"x"
print("done")
""",
        "done",
    )


def test_a_fork_before_the_first_call_gives_two_working_processes(script: Script) -> None:
    script(
        """
go()

def child():
    assert run("default", echo) == b"x"

pid = fork(child)
assert run("default", echo) == b"x"
assert succeeded(pid)
print("done")
""",
        "done",
    )


def test_a_fork_works_while_functions_run(script: Script) -> None:
    script(
        """
stop = threading.Event()
failures = []

def work():
    try:
        while not stop.is_set():
            assert run("default", number) == mine
    except BaseException as error:
        failures.append(error)

mine = run("default", number)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
go()

def child():
    assert run("default", echo) == b"x"

for _ in range(6):
    assert succeeded(fork(child))
stop.set()
for thread in threads:
    thread.join()
print(failures)
""",
        "[]",
    )


def test_a_forked_child_closes_the_sockets_of_open_blocks(script: Script) -> None:
    """Otherwise the connection would stay open on the server after the parent has died."""
    script(
        """
forked = threading.Event()
opened = threading.Event()

async def block():
    async with connection() as nc:
        opened.set()
        await asyncio.to_thread(forked.wait)
        assert await echo(nc) == b"x"

thread = threading.Thread(target=asyncio.run, args=(block(),))
thread.start()
opened.wait()
assert sockets_to_server() == 1
go()

def child():
    assert sockets_to_server() == 0
    async def own():
        async with connection() as nc:
            assert await echo(nc) == b"x"
    asyncio.run(own())
    os._exit(0)  # an orderly exit would wait for the executor of the parent's loop

pid = fork(child)
assert succeeded(pid)
assert sockets_to_server() == 1
forked.set()
thread.join()
print("done")
""",
        "done",
    )


def test_a_forked_child_leaves_files_alone_that_have_the_numbers_of_closed_sockets(
    script: Script,
) -> None:
    """The child replaces what has the number of an open socket."""
    script(
        """
kept = []

async def close(nc):
    kept.append(nc)
    await nc.close()

run("default", close)
assert sockets_to_server() == 0
files = [open("/dev/zero", "rb", buffering=0) for _ in range(40)]
go()

def child():
    for each in files:
        assert each.read(1) == bytes(1)

assert succeeded(fork(child))
print("done")
""",
        "done",
    )


def test_a_call_that_a_signals_handler_has_forked_fails_in_the_child(script: Script) -> None:
    """The loop that runs its function exists in the parent only."""
    script(
        """
from django_nats.client.plain import shared
from django_nats.exceptions import OutcomeUnknown
shared._ALIVE_CHECK_S = 0.1
parent = os.getpid()
running, released = threading.Event(), threading.Event()
children = []
signal.signal(signal.SIGUSR1, lambda *_: children.append(os.fork()))

async def held(nc):
    running.set()
    await asyncio.to_thread(released.wait)

def interrupt():
    running.wait()
    os.kill(parent, signal.SIGUSR1)
    while not children:
        pass
    assert succeeded(children[0])
    released.set()

go()
threading.Thread(target=interrupt).start()
try:
    run("default", held)
    print("ended")
except OutcomeUnknown:
    assert os.getpid() != parent
    assert run("default", echo) == b"x"
""",
        "ended",
    )


# Exits and signals ---------------------------------------------------------------------------


def test_exits_silently_after_use(script: Script) -> None:
    script('assert run("default", echo) == b"x"\ngo()')


def test_exits_silently_while_functions_run_in_daemon_threads(script: Script) -> None:
    script(
        """
from django_nats.client.transport import loop
loop._LINGER_S = 3000.0  # the interpreter may be slow to exit
running = threading.Semaphore(0)

async def never(nc):
    await nc.subscribe("a")
    running.release()
    await asyncio.Event().wait()

def again():
    while True:
        run("default", echo)

for target in (lambda: run("default", never), again):
    for _ in range(3):
        threading.Thread(target=target, daemon=True).start()
for _ in range(3):
    running.acquire()
go()
"""
    )


def test_exits_silently_while_the_server_is_stopped(script: Script, own_server: NatsServer) -> None:
    script('run("default", number)\ngo()', when_ready=lambda _: own_server.pause())


def test_exits_silently_while_connecting_to_a_silent_address(script: Script) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        script(
            'threading.Thread(target=run, args=("default", number), daemon=True).start()\ngo()',
            location=f"nats://127.0.0.1:{silent.getsockname()[1]}",
        )


def test_a_call_in_atexit_after_the_close_is_refused(script: Script) -> None:
    script(
        """
import atexit
from django_nats.client import process
from django_nats.exceptions import NotSent

def late():
    try:
        run("default", number)
    except NotSent as error:
        print(error)

run("default", number)
atexit.unregister(process._close_at_exit)
atexit.register(late)
atexit.register(process._close_at_exit)
go()
""",
        "The interpreter is shutting down",
    )


def test_control_c_ends_a_call_and_cancels_its_function(script: Script) -> None:
    script(
        """
running, cancelled = threading.Event(), threading.Event()

async def never(nc):
    running.set()
    try:
        await asyncio.Event().wait()
    finally:
        cancelled.set()

def interrupt():
    running.wait()
    os.kill(os.getpid(), signal.SIGINT)

go()
threading.Thread(target=interrupt).start()
try:
    run("default", never)
except KeyboardInterrupt:
    print(cancelled.wait(500), run("default", echo))
""",
        "True b'x'",
    )
