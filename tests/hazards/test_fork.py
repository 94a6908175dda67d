"""A forked child opens its own connection; the parent's connection is not affected."""

from __future__ import annotations

from collections.abc import Callable

from django_nats.devserver import NatsServer
from tests.support.cluster import monitor
from tests.support.scripts import FORK, Ended

Script = Callable[..., Ended]


def _assert_prints_only(ended: Ended, stdout: str) -> None:
    assert (ended.status, ended.stdout, ended.stderr) == (0, stdout, "")


def test_a_fork_before_first_use_gives_two_working_processes(script: Script) -> None:
    ended = script(
        FORK
        + """
go()
pid = fork(lambda: cache.set("child", 1))
cache.set("parent", 1)
assert succeeded(pid)
print(cache.get("child"), cache.get("parent"))
"""
    )
    _assert_prints_only(ended, "1 1")


def test_a_fork_after_first_use_gives_the_child_its_own_connection(
    script: Script, own_server: NatsServer
) -> None:
    ended = script(
        FORK
        + f"import urllib.request; CONNZ = {monitor(own_server)!r} + '/connz'"
        + """
def identities():
    with urllib.request.urlopen(CONNZ) as response:
        return {each["cid"] for each in json.load(response)["connections"]}

import json, time
from django_nats.devserver.files import eventually
cache.set("parent", 1)
go()
(mine,) = identities()
from_child, to_parent = os.pipe()
from_parent, to_child = os.pipe()

def child():
    cache.set("child", 1)
    assert len(identities()) == 2
    os.write(to_parent, b".")
    os.read(from_parent, 1)
    assert cache.get("parent") == 2

pid = fork(child)
os.read(from_child, 1)
cache.set("parent", 2)
assert mine in identities()  # while the child has a second connection
os.write(to_child, b".")
assert succeeded(pid)
assert cache.get("child") == 1 and cache.get("parent") == 2
# The server may notice the child's end a little later; the parent's connection stays open.
assert eventually(lambda: identities() == {mine}, time.monotonic() + 60)
print("done")
"""
    )
    _assert_prints_only(ended, "done")


def test_the_child_closes_its_copy_of_the_parents_socket(script: Script) -> None:
    ended = script(
        FORK
        + """
def sockets_to_server():
    port = int(sys.argv[1].rpartition(":")[2])
    with open("/proc/self/net/tcp") as table:
        inodes = {
            row.split()[9] for row in table if row.split()[2].endswith(f":{port:04X}")
        }
    links = (os.readlink(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd")
             if os.path.exists(f"/proc/self/fd/{each}"))
    return len({f"socket:[{inode}]" for inode in inodes} & set(links))

cache.set("key", 1)
assert sockets_to_server() == 1
go()

def child():
    assert sockets_to_server() == 0
    assert cache.get("key") == 1
    assert sockets_to_server() == 1

assert succeeded(fork(child))
assert sockets_to_server() == 1
print(cache.get("key"))
"""
    )
    _assert_prints_only(ended, "1")


def test_a_fork_works_while_other_threads_have_requests_in_flight(script: Script) -> None:
    ended = script(
        FORK
        + """
cache.set("key", 1)
stop = threading.Event()
failures = []

def work(number):
    try:
        while not stop.is_set():
            cache.set(f"thread-{number}", number)
            assert cache.get(f"thread-{number}") == number
    except BaseException as error:
        failures.append(error)

threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
for thread in threads:
    thread.start()
go()
for turn in range(8):
    assert succeeded(fork(lambda: cache.set(f"child-{turn}", cache.get("key"))))
stop.set()
for thread in threads:
    thread.join()
assert not failures, failures
print(sorted(cache.get_many([f"child-{turn}" for turn in range(8)]).values()))
"""
    )
    _assert_prints_only(ended, str([1] * 8))


def test_a_fork_works_while_a_thread_reads_the_shared_socket(script: Script) -> None:
    """The reading thread is inside poll() and holds the right to read. The child inherits that
    state, without the thread that would give the right back."""
    ended = script(
        FORK
        + """
import asyncio, time
from django_nats.client.transport import connection, shared_socket
from django_nats.devserver.files import eventually

if not shared_socket.AVAILABLE:
    go()
    print("done")
    sys.exit()

connection.PING_INTERVAL_S = 600  # no answer is read while the reader waits
shared_socket.READ_PATIENCE_S = 600
cache.set("key", "value")
mine = cache.session._connection._shared
own, watch = mine.descriptors
sent = threading.Event()
answer = threading.Event()
read = shared_socket.SharedSocket._read

def read_held(self):
    if threading.current_thread() is reader:
        sent.set()
        answer.wait()
    return read(self)

shared_socket.SharedSocket._read = read_held
found = []
reader = threading.Thread(target=lambda: found.append(cache.get("key")))
go()
reader.start()
sent.wait()

def watched():
    with open(f"/proc/self/fdinfo/{watch}") as info:
        return [line.split() for line in info if line.startswith("tfd")]

before = watched()
assert len(before) == 1, before

def child():
    for each in (own, watch):
        assert os.readlink(f"/proc/self/fd/{each}") == "/dev/null"
    # The parent's objects still hold the descriptor numbers; using them does no harm.
    mine.begin_reading(mine._loop_reader)
    assert cache.get("key") == "value"
    asyncio.run(cache.aset("child", 1))
    assert cache.session._connection._shared is not mine

for _ in range(3):
    assert succeeded(fork(child))
    assert watched() == before
answer.set()
reader.join()
assert found == ["value"]
(after,) = watched()
assert after != before[0]  # the loop watches the socket again
assert cache.get("child") == 1 and cache.session._connection._shared is mine
print("done")
"""
    )
    _assert_prints_only(ended, "done")


def test_a_fork_works_after_the_connection_was_lost(script: Script, own_server: NatsServer) -> None:
    """The connection is closed and not yet reopened, so the child has no socket to close."""
    ended = script(
        FORK
        + """
import logging; logging.disable()
from django_nats.client import drivers, process
from django_nats.client.transport.loop import thread as loop_thread

cache.set("key", 1)
connection = cache.session._connection
go()
lost = threading.Event()
forked = threading.Event()

def lose():  # hold the loop's thread before it informs the session
    connection.lose(ConnectionResetError("lost"))
    lost.set()
    forked.wait()

loop_thread.call(lose)
lost.wait()
assert connection.descriptors()[1:] == [-1, -1] or not connection._shared
pid = fork(lambda: cache.set("child", cache.get("key")))
forked.set()
assert succeeded(pid)
from django_nats.devserver.files import eventually
import time

def answers():
    try:
        return cache.get("child") == 1
    except Exception:
        return False

print(eventually(answers, time.monotonic() + 30))
"""
    )
    _assert_prints_only(ended, "True")


def test_a_multiprocessing_pool_of_forked_workers_uses_the_cache(script: Script) -> None:
    ended = script(
        FORK
        + """
import multiprocessing

def work(number):
    cache.set(f"child-{number}", number)
    return cache.get(f"child-{number}")

cache.set("key", 1)
go()
with multiprocessing.get_context("fork").Pool(3) as pool:
    print(pool.map(work, range(12)), cache.get("key"))
"""
    )
    _assert_prints_only(ended, f"{list(range(12))} 1")


def test_a_lane_that_is_down_is_reset_by_a_fork_and_by_close(script: Script) -> None:
    """Only the parent probes the lane; after close() no process does."""
    ended = script(
        FORK
        + """
import time
from django_nats.client import drivers, process
from django_nats.client.transport.loop import thread as loop_thread
from django_nats.client.protocol.steps import Lane, Request
from django_nats.devserver.files import eventually
from django_nats.exceptions import Unavailable

lane = Lane("a lane", 0.1)
lane.probe = Request(lane, "nobody.answers")

def ask(subject):
    return (yield Request(lane, subject))

cache.set("key", 1)
go()

# A service that never answers: the lane is down, and the connection is not.
connection = cache.session._connection
listening = threading.Event()
def listen():
    connection._transport.write(b"SUB nobody.answers 900000\\r\\n")
    listening.set()
loop_thread.call(listen)
listening.wait()

def down():
    try:
        drivers.run(cache.session, ask("nobody.answers"))
    except Unavailable:
        pass
    return lane.fault  # None if the server was so slow that the connection counted as lost

assert eventually(down, time.monotonic() + 60)
lane.timeout = 60

def child():
    assert lane.fault is None
    drivers.run(cache.session, ask("$JS.API.INFO"))

assert succeeded(fork(child))
process.close()
drivers.run(cache.session, ask("$JS.API.INFO"))
print("done")
"""
    )
    assert (ended.status, ended.stdout) == (0, "done"), ended.stderr


def test_the_connection_outlives_many_children(script: Script) -> None:
    ended = script(
        FORK
        + """
cache.set("key", 0)
go()
for turn in range(20):
    assert succeeded(fork(lambda: cache.incr("key")))
print(cache.get("key"))
"""
    )
    _assert_prints_only(ended, "20")


def test_a_fork_while_a_process_logs_in_leaves_the_socket_to_the_parent(script: Script) -> None:
    """If the child kept it, the server would not notice that the parent closes it."""
    ended = script(
        FORK
        + """
import contextlib, logging, socket
from django_nats.client import process
logging.disable()

listener = socket.create_server(("127.0.0.1", 0))
location = f"nats://127.0.0.1:{listener.getsockname()[1]}"
slow = NatsCache(location, {"OPTIONS": {"CONNECT_TIMEOUT": 3000.0, "FAIL_OPEN": True}})
asking = threading.Thread(target=slow.get, args=("key",))
go()
asking.start()
server, _ = listener.accept()
server.settimeout(60)
server.sendall(b'INFO {"version": "2.12.0", "max_payload": 1048576, "headers": true}\\r\\n')
assert server.recv(1) == b"C"
reading, writing = os.pipe()

def child():
    for each in (server, listener):
        each.close()
    os.close(writing)
    os.read(reading, 1)

pid = fork(child)
process.close()
asking.join()
with contextlib.suppress(ConnectionResetError):
    while server.recv(4096):
        pass
os.close(writing)
assert succeeded(pid)
print("closed")
"""
    )
    _assert_prints_only(ended, "closed")
