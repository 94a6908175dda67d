"""cache.watch: what it tells of, what it leaves out, and what can be read while it does."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import bridge
from django_nats.client.mailbox import Mailbox
from django_nats.devserver import NatsServer
from django_nats.exceptions import AuthenticationFailed, NatsError, NotSent
from tests.conftest import MakeCache
from tests.support import scripts
from tests.support.scripts import run_script


def first_of(changes: Any, count: int) -> list[Any]:
    return [next(changes) for _ in range(count)]


def test_begins_with_a_gap_and_tells_of_sets_and_deletes(make_cache: MakeCache) -> None:
    cache = make_cache()
    cache.set("before", 1)
    changes = iter(cache.watch())
    assert next(changes).gap
    cache.set("a", 1)
    cache.set("b", 2)
    cache.delete("a")
    told = first_of(changes, 3)
    assert [(each.key, each.deleted, each.gap) for each in told] == [
        ("a", False, False),
        ("b", False, False),
        ("a", True, False),
    ]
    assert told[0].revision < told[1].revision < told[2].revision
    changes.close()


async def test_may_be_gone_through_on_an_event_loop(make_cache: MakeCache) -> None:
    cache = make_cache()
    told = []
    async for change in cache.watch("a*"):
        if change.gap:
            await cache.aset("b", 1)
            await cache.aset("a1", 1)
        told.append(change.key)
        if change.key == "a1":
            break
    assert told == [None, "a1"]


def test_tells_of_one_version_and_pattern(make_cache: MakeCache) -> None:
    cache = make_cache(KEY_PREFIX="web")
    changes = iter(cache.watch("user:*", version=2))
    assert next(changes).gap
    cache.set("user:1", "other version")
    cache.set("order:1", "other key", version=2)
    cache.set("user:2", "this", version=2)
    assert next(changes).key == "user:2"
    changes.close()


def test_a_clear_is_a_gap(make_cache: MakeCache) -> None:
    cache = make_cache()
    changes = iter(cache.watch("user:*"))
    assert next(changes).gap
    cache.clear()
    assert next(changes).gap
    changes.close()


def test_what_is_told_of_can_be_read_at_once_with_a_near_cache(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_cache(OPTIONS={"NEAR_CACHE": {}})
    bucket = cache._config.bucket.name
    other = make_cache(OPTIONS={"BUCKET": bucket, "NAME": "another process"})
    other.set("flag", "old")
    while cache.near is None or not cache.near.hits:
        cache.get("flag")
    # As if its own feed were slower than the watch's.
    monkeypatch.setattr(cache.near._follower, "changed", lambda *told: None)
    changes = iter(cache.watch("flag"))
    assert next(changes).gap
    assert cache.get("flag") == "old"
    other.set("flag", "new")
    assert next(changes).key == "flag"
    assert cache.get("flag") == "new"

    other.clear()
    assert next(changes).gap
    assert cache.get("flag") is None
    changes.close()


# How it ends ---------------------------------------------------------------------------------


class Reading:
    """A watch that is gone through by another thread, by ``for`` or by ``async for``."""

    def __init__(self, cache: NatsCache, *, native: bool) -> None:
        self.begun = threading.Event()
        self.error: BaseException | None = None
        self._cache = cache
        self._thread = threading.Thread(target=self._aread if native else self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for _ in self._cache.watch():
                self.begun.set()
        except NatsError as error:
            self.error = error

    def _aread(self) -> None:
        async def read() -> None:
            async for _ in self._cache.watch():
                self.begun.set()

        try:
            asyncio.run(read())
        except NatsError as error:
            self.error = error

    def end(self, seconds: float = 3) -> BaseException | None:
        """What it has ended with, in less time than it takes to look for the loop."""
        self._thread.join(seconds)
        assert not self._thread.is_alive()
        return self.error


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def native(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_closing_the_connections_ends_it(make_cache: MakeCache, native: bool) -> None:
    cache = make_cache()
    reading = Reading(cache, native=native)
    assert reading.begun.wait(30)
    bridge.close()
    cache.set("key", 1)  # another loop runs from here on
    error = reading.end()
    assert type(error) is NotSent
    assert str(error) == "The connection has been closed"


def test_a_mistake_of_ours_ends_it(
    make_cache: MakeCache, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(self: Mailbox, stream: object) -> Any:
        raise LookupError("a mistake")

    monkeypatch.setattr(Mailbox, "position", mistaken)
    error = Reading(make_cache(), native=native).end()
    assert type(error) is NotSent
    assert isinstance(error.__cause__, LookupError)


def test_wrong_credentials_end_it(make_cache: MakeCache, native: bool) -> None:
    cache = make_cache(OPTIONS={"TOKEN": "wrong"}, location=make_cache().session.config.servers[0])
    error = Reading(cache, native=native).end()
    assert isinstance(error, AuthenticationFailed)
    assert "wrong" not in str(error)
    bridge.close()


def test_it_ends_in_a_forked_child_and_goes_on_in_the_parent(
    make_cache: MakeCache, server: NatsServer
) -> None:
    ended = run_script(
        """
import os, signal
from django_nats.exceptions import NatsError
signal.alarm(20)  # whatever hangs is ended
print("ready", flush=True)
sys.stdin.readline()
changes = iter(cache.watch())
next(changes)
pid = os.fork()
if not pid:
    signal.alarm(10)
    cache.set("key", 1)
    try:
        next(changes)
    except NatsError as error:
        print(repr(error), flush=True)
    again = iter(cache.watch())
    print(next(again).gap, flush=True)
    os._exit(0)
key = next(changes).key
assert os.waitpid(pid, 0)[1] == 0
cache.set("other", 1)
print(key, next(changes).key)
""",
        server.url,
        make_cache()._config.bucket.name,
        server.token,
    )
    assert ended.status == 0, ended.stderr
    assert ended.stdout == "NotSent('The connection has been closed')\nTrue\nkey other"


def test_a_child_that_is_forked_while_it_waits_is_woken(
    make_cache: MakeCache, server: NatsServer
) -> None:
    """By a signal's handler, on the thread that waits."""
    ended = run_script(
        """
import os, signal, threading
from django_nats.exceptions import NatsError
signal.alarm(20)
print("ready", flush=True)
sys.stdin.readline()
children = []
def fork(*args):
    children.append(os.fork())
    if children == [0]:
        signal.alarm(10)
    else:
        # Only now: in a child, there is no such thread.
        threading.Thread(target=lambda: (os.waitpid(children[0], 0), cache.set("key", 1))).start()
signal.signal(signal.SIGUSR1, fork)
changes = iter(cache.watch())
next(changes)
def interrupt():
    from django_nats.client import bridge
    me = threading.main_thread().ident
    while sys._current_frames()[me].f_code is not bridge._is_released.__code__:
        pass
    os.kill(os.getpid(), signal.SIGUSR1)
threading.Thread(target=interrupt, daemon=True).start()
try:
    print(next(changes).key, flush=True)
except NatsError as error:
    print(repr(error), flush=True)
    os._exit(0)
""",
        server.url,
        make_cache()._config.bucket.name,
        server.token,
    )
    assert ended.status == 0, ended.stderr
    assert ended.stdout == "NotSent('The connection has been closed')\nkey", ended.stderr


def test_an_exit_is_silent(make_cache: MakeCache, server: NatsServer) -> None:
    # Registered before the package's own, it runs after that: the thread has time to complain.
    linger = "import atexit, time\natexit.register(time.sleep, 0.3)\n"
    ended = run_script(
        """
import threading
begun = threading.Event()
def follow():
    for change in cache.watch():
        begun.set()
print("ready", flush=True)
sys.stdin.readline()
thread = threading.Thread(target=follow, daemon=True)
thread.start()
assert begun.wait(30)
""",
        server.url,
        make_cache()._config.bucket.name,
        server.token,
        prelude=linger + scripts._PRELUDE,
    )
    assert (ended.status, ended.stderr) == (0, "")


def test_a_signals_handler_may_be_told_while_the_reader_begins_to_wait(
    make_cache: MakeCache, server: NatsServer
) -> None:
    """Its own operation reads what the feed tells, on the thread that waits for that."""
    ended = run_script(
        """
import faulthandler, threading
faulthandler.dump_traceback_later(15, exit=True)  # whatever hangs is ended, and shown
from django_nats.client import bridge
print("ready", flush=True)
sys.stdin.readline()
changes = iter(cache.watch())
next(changes)
mailbox = bridge._living()[0]._listener
waiting = bridge._wait_for, bridge._is_released, threading.Event.wait, threading.Condition.wait
waits = {each.__code__ for each in waiting}
def trace(frame, event, arg):
    # A handler runs between two lines: here, before the one whose turn it is.
    global left
    if frame.f_code not in waits:
        return None
    if event == "line":
        left -= 1
        if left == 0:
            told = len(mailbox._told)
            cache.set("handled", 1)
            while len(mailbox._told) == told:
                cache.get("handled")
    return trace
at, found = 0, "handled"
while found == "handled":
    at += 1
    left = at
    later = threading.Timer(1, cache.set, ["no such line", 1])
    later.start()
    sys.settrace(trace)
    found = next(changes).key
    sys.settrace(None)
    later.cancel()
print(at > 5, found)
changes.close()
""",
        server.url,
        make_cache()._config.bucket.name,
        server.token,
    )
    assert (ended.status, ended.stdout) == (0, "True no such line"), ended.stderr
