"""A signal handler raises in the main thread, in the middle of a call.

That is how a server aborts a worker, and how a task queue enforces a time limit. No call may return
a wrong value or hang, and no waiter may be left behind.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.scripts import Ended

Script = Callable[..., Ended]

_TURNS = 200

_PROGRAM = f"""
import faulthandler, logging, os, random, signal, threading, time
from django_nats.devserver.files import eventually
from django_nats.exceptions import Unavailable

faulthandler.dump_traceback_later(500, exit=True)  # ends the program with a traceback if it hangs
logging.disable()
# A call that has lost its reader or its waiter hangs; the long timeouts make that visible.
values = {{f"key-{{each}}": f"value-{{each}}" for each in range(10)}}
cache.set_many(values)
print("ready", flush=True)
sys.stdin.readline()

chance = random.Random(1)
wrong = []
ignored = []
sys.unraisablehook = ignored.append  # the exception hit a weak reference's callback
stop = threading.Event()
worked = [0] * OTHERS

def other(number):
    # The connection may be reopened at any time; nothing else may happen to this thread.
    while not stop.is_set():
        key = chance.choice(list(values))
        try:
            found = cache.get(key)
            if found != values[key]:
                wrong.append((key, found))
            cache.set(f"other-{{number}}", number)
            worked[number] += 1
        except Unavailable:
            pass
        except BaseException as error:
            wrong.append(error)
        stop.wait(chance.random() / 1000)

def check(found, value):
    if found is None and issubclass(INTERRUPTION, Exception):
        raise INTERRUPTION  # raised inside the serializer, it makes the value unreadable: a miss
    if found != value:
        wrong.append((found, value))

def turn(number):
    end, count, before = time.monotonic() + 60, 0, len(ignored)
    while time.monotonic() < end:
        if len(ignored) > before:
            raise INTERRUPTION
        count += 1
        mine = f"main-{{number}}-{{count}}"
        key = chance.choice(list(values))
        try:
            check(cache.get(key), values[key])
            cache.set(mine, mine)
            check(cache.get(mine), mine)
        except Unavailable:
            pass  # while the connection is reopened
    wrong.append("an interruption has been swallowed")

def all_is_there():
    try:
        return cache.get_many(values) == values
    except Unavailable:
        return False

others = [threading.Thread(target=other, args=(number,)) for number in range(OTHERS)]
for thread in others:
    thread.start()

interrupted = 0
for number in range({_TURNS}):
    before = sum(worked)
    try:
        interrupt(chance.uniform(20e-6, 1500e-6))
        turn(number)
    except INTERRUPTION:
        interrupted += 1
    if others and number % 50 == 0:
        assert eventually(lambda: sum(worked) > before, time.monotonic() + 60)

stop.set()
for thread in others:
    thread.join()
assert eventually(lambda: cache.session.waiters == 0, time.monotonic() + 60)
assert eventually(all_is_there, time.monotonic() + 60)
assert not wrong, wrong[:5]
print(interrupted)
"""

# Like Celery's soft time limit, and gunicorn's abort of a worker.
_ALARM = """
import signal

class TimeLimit(Exception):
    pass

INTERRUPTION = {kind}

def handler(number, frame):
    raise INTERRUPTION

signal.signal(signal.SIGALRM, handler)

def interrupt(seconds):
    signal.setitimer(signal.ITIMER_REAL, seconds)

"""

_KILL = """
import os, queue, signal, threading, time

INTERRUPTION = KeyboardInterrupt
due = queue.SimpleQueue()

def kill():
    while True:
        time.sleep(due.get())  # real time: any moment will do
        os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=kill, daemon=True).start()
interrupt = due.put
"""


@pytest.mark.parametrize("others", [0, 3], ids=["one thread", "four threads"])
@pytest.mark.parametrize("kind", ["TimeLimit", "SystemExit"])
def test_a_raising_handler_leaves_values_correct_and_no_waiter(
    script: Script, kind: str, others: int
) -> None:
    ended = script(f"OTHERS = {others}\n" + _ALARM.format(kind=kind) + _PROGRAM)
    assert (ended.status, ended.stdout, ended.stderr) == (0, str(_TURNS), "")


@pytest.mark.parametrize("others", [0, 3], ids=["one thread", "four threads"])
def test_keyboard_interrupts_leave_values_correct_and_no_waiter(
    script: Script, others: int
) -> None:
    ended = script(f"OTHERS = {others}\n" + _KILL + _PROGRAM)
    assert (ended.status, ended.stdout, ended.stderr) == (0, str(_TURNS), "")


def test_a_handler_that_uses_the_cache_is_served_or_refused(script: Script) -> None:
    """A handler cannot wait for the call it interrupted: it is served, or gets NotSent at once."""
    ended = script(
        """
import faulthandler, random, signal, time
from collections import Counter
from django_nats.exceptions import NotSent

faulthandler.dump_traceback_later(500, exit=True)  # ends the program with a traceback if it hangs
cache.set("key", "value")
print("ready", flush=True)
sys.stdin.readline()
outcomes = Counter()

def handler(number, frame):
    try:
        cache.set("draining", number)
        outcomes[cache.get("draining") == number] += 1
    except NotSent as error:
        outcomes["interrupted" in str(error) and "refused"] += 1

signal.signal(signal.SIGALRM, handler)
chance = random.Random(1)
turn = 0
give_up = time.monotonic() + 60
# Until both outcomes have occurred.
while turn < 300 or (len(outcomes) < 2 and time.monotonic() < give_up):
    signal.setitimer(signal.ITIMER_REAL, chance.uniform(20e-6, 600e-6))
    while outcomes.total() == turn:
        assert cache.get("key") == "value"
    turn += 1
assert cache.session.waiters == 0
print(*sorted(map(str, outcomes)))
"""
    )
    assert (ended.status, ended.stdout, ended.stderr) == (0, "True refused", "")
