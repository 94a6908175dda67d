"""A forked process begins anew; its parent notices nothing."""

from __future__ import annotations

from collections.abc import Callable

from django_nats.devserver import NatsServer
from tests.support.cluster import monitor
from tests.support.scripts import Ended

Script = Callable[..., Ended]

_FORK = """
import os, signal, threading
signal.alarm(50)  # whatever hangs is ended

def fork(child):
    pid = os.fork()
    if not pid:
        child()
        sys.exit()  # in order, with everything the interpreter does at its end
    return pid

def succeeded(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

def go():
    print("ready", flush=True)
    sys.stdin.readline()
"""


def _silent(ended: Ended, said: str) -> None:
    assert (ended.status, ended.stdout, ended.stderr) == (0, said, "")


def test_before_first_use(script: Script) -> None:
    ended = script(
        _FORK
        + """
go()
pid = fork(lambda: cache.set("child", 1))
cache.set("parent", 1)
assert succeeded(pid)
print(cache.get("child"), cache.get("parent"))
"""
    )
    _silent(ended, "1 1")


def test_after_first_use(script: Script, own_server: NatsServer) -> None:
    ended = script(
        _FORK
        + f"import urllib.request; CONNZ = {monitor(own_server)!r} + '/connz'"
        + """
def identities():
    with urllib.request.urlopen(CONNZ) as response:
        return {each["cid"] for each in json.load(response)["connections"]}

import json
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
assert mine in identities()  # while the child has its own
os.write(to_child, b".")
assert succeeded(pid)
assert cache.get("child") == 1 and cache.get("parent") == 2
assert identities() == {mine}  # the parent's never went
print("done")
"""
    )
    _silent(ended, "done")


def test_the_child_lets_go_of_the_parents_socket(script: Script) -> None:
    ended = script(
        _FORK
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
    _silent(ended, "1")


def test_while_other_threads_are_in_flight(script: Script) -> None:
    ended = script(
        _FORK
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
    _silent(ended, str([1] * 8))


def test_while_another_thread_reads_for_itself(script: Script) -> None:
    """Inside poll(), with the right to read, which the child's copy of it never gives back."""
    ended = script(
        _FORK
        + """
import asyncio, time
from django_nats.client import shared
from django_nats.devserver.files import eventually

if not shared.AVAILABLE:
    go()
    print("done")
    sys.exit()

shared.PATIENCE = 20
cache.set("key", "value")
cache._bucket.reads.timeout = 60
mine = cache.session._connection._shared
own, watch = mine.descriptors
sent = threading.Event()
answer = threading.Event()
read = shared.SharedSocket._read

def held(self):
    if threading.current_thread() is reader:
        sent.set()
        answer.wait()
    return read(self)

shared.SharedSocket._read = held
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
    # What still knows the numbers, the parent's objects, harms nothing by them.
    mine.begin_reading(mine._reader)
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
assert after != before[0]  # the loop looks again
assert cache.get("child") == 1 and cache.session._connection._shared is mine
print("done")
"""
    )
    _silent(ended, "done")


def test_after_the_connection_was_lost(script: Script, own_server: NatsServer) -> None:
    """Closed and not yet made anew, it has nothing a child could let go of."""
    ended = script(
        _FORK
        + """
import logging; logging.disable()
from django_nats.client import bridge

cache.set("key", 1)
connection = cache.session._connection
go()
lost = threading.Event()
forked = threading.Event()

def lose():  # the loop's thread is held before it can tell the session
    connection.lose(ConnectionResetError("lost"))
    lost.set()
    forked.wait()

bridge._thread.call(lose)
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
    _silent(ended, "True")


def test_multiprocessing(script: Script) -> None:
    ended = script(
        _FORK
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
    _silent(ended, f"{list(range(12))} 1")


def test_a_lane_that_is_down_is_so_for_its_process_only(script: Script) -> None:
    """Only the parent would notice that it answers again; nor would anybody after close()."""
    ended = script(
        _FORK
        + """
from django_nats.client import bridge
from django_nats.client.steps import Lane, Request

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
bridge._thread.call(listen)
listening.wait()
try:
    bridge.run(cache.session, ask("nobody.answers"))
except Exception as error:
    assert type(error).__name__ == "OutcomeUnknown", error
assert lane.fault and cache.get("key") == 1

def child():
    assert lane.fault is None
    bridge.run(cache.session, ask("$JS.API.INFO"))

assert succeeded(fork(child))
bridge.close()
bridge.run(cache.session, ask("$JS.API.INFO"))
print("done")
"""
    )
    assert (ended.status, ended.stdout) == (0, "done"), ended.stderr


def test_the_connection_outlives_many_children(script: Script) -> None:
    ended = script(
        _FORK
        + """
cache.set("key", 0)
go()
for turn in range(20):
    assert succeeded(fork(lambda: cache.incr("key")))
print(cache.get("key"))
"""
    )
    _silent(ended, "20")
