"""cache.watch(): the changes it yields, those it leaves out, and how it ends."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import drivers, process
from django_nats.client.feed.mailbox import Mailbox
from django_nats.devserver import NatsServer
from django_nats.exceptions import AuthenticationFailed, NatsError, NotSent
from tests.cache.conftest import publish
from tests.conftest import MakeCache
from tests.support import scripts
from tests.support.scripts import run_script


def take(changes: Any, count: int) -> list[Any]:
    return [next(changes) for _ in range(count)]


def test_a_watch_begins_with_a_gap_and_yields_sets_and_deletes(make_cache: MakeCache) -> None:
    cache = make_cache()
    cache.set("before", 1)
    changes = iter(cache.watch())
    assert next(changes).gap
    cache.set("a", 1)
    cache.set("b", 2)
    cache.delete("a")
    seen = take(changes, 3)
    assert [(each.key, each.deleted, each.gap) for each in seen] == [
        ("a", False, False),
        ("b", False, False),
        ("a", True, False),
    ]
    assert seen[0].revision < seen[1].revision < seen[2].revision
    changes.close()


def test_a_delete_without_a_blank_in_its_header_is_a_delete(make_cache: MakeCache) -> None:
    """The Java client writes headers so."""
    cache = make_cache()
    changes = iter(cache.watch())
    assert next(changes).gap
    publish(cache, "a", b"", "KV-Operation:DEL")
    (seen,) = take(changes, 1)
    assert (seen.key, seen.deleted) == ("a", True)
    changes.close()


async def test_a_watch_can_be_iterated_on_an_event_loop(make_cache: MakeCache) -> None:
    cache = make_cache()
    seen = []
    async for change in cache.watch("a*"):
        if change.gap:
            await cache.aset("b", 1)
            await cache.aset("a1", 1)
        seen.append(change.key)
        if change.key == "a1":
            break
    assert seen == [None, "a1"]


def test_a_watch_yields_changes_of_one_version_and_pattern(make_cache: MakeCache) -> None:
    cache = make_cache(KEY_PREFIX="web")
    changes = iter(cache.watch("user:*", version=2))
    assert next(changes).gap
    cache.set("user:1", "other version")
    cache.set("order:1", "other key", version=2)
    cache.set("user:2", "this", version=2)
    assert next(changes).key == "user:2"
    changes.close()


def test_a_clear_yields_a_gap(make_cache: MakeCache) -> None:
    cache = make_cache()
    changes = iter(cache.watch("user:*"))
    assert next(changes).gap
    cache.clear()
    assert next(changes).gap
    changes.close()


def test_a_near_cache_reads_the_new_value_of_a_yielded_change(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_cache(OPTIONS={"NEAR_CACHE": {}})
    bucket = cache.config.bucket.name
    other = make_cache(OPTIONS={"BUCKET": bucket, "NAME": "another process"})
    other.set("flag", "old")
    while cache.near is None or not cache.near.hits:
        cache.get("flag")
    # Make the near cache's own feed slower than the watch's.
    monkeypatch.setattr(cache.near._follower, "changed", lambda *args: None)
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


# How a watch ends ----------------------------------------------------------------------------


class BackgroundWatch:
    """A watch that another thread iterates, with ``for`` or with ``async for``."""

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

    def end(self) -> BaseException | None:
        """Wait for the end of the watch and return its error, or None.

        The watch must be woken: with the patched interval it does not check the loop itself.
        """
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.error


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(drivers, "_ALIVE_CHECK_S", 3600.0)  # no periodic check
    return bool(request.param)


def test_closing_the_connections_ends_a_watch(make_cache: MakeCache, native: bool) -> None:
    cache = make_cache()
    background = BackgroundWatch(cache, native=native)
    assert background.begun.wait(60)
    process.close()
    cache.set("key", 1)  # starts another loop
    error = background.end()
    assert type(error) is NotSent
    assert str(error) == "The connection has been closed"


def test_an_internal_error_ends_a_watch(
    make_cache: MakeCache, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Mailbox, stream: object) -> Any:
        raise LookupError("a mistake")

    monkeypatch.setattr(Mailbox, "position", fail)
    error = BackgroundWatch(make_cache(), native=native).end()
    assert type(error) is NotSent
    assert isinstance(error.__cause__, LookupError)


def test_wrong_credentials_end_a_watch(make_cache: MakeCache, native: bool) -> None:
    cache = make_cache(OPTIONS={"TOKEN": "wrong"}, location=make_cache().session.config.servers[0])
    error = BackgroundWatch(cache, native=native).end()
    assert isinstance(error, AuthenticationFailed)
    assert "wrong" not in str(error)
    process.close()


def test_a_watch_ends_in_a_forked_child_and_continues_in_the_parent(
    make_cache: MakeCache, server: NatsServer
) -> None:
    ended = run_script(
        """
import os, signal
from django_nats.exceptions import NatsError
signal.alarm(510)  # ends a script that hangs
print("ready", flush=True)
sys.stdin.readline()
changes = iter(cache.watch())
next(changes)
pid = os.fork()
if not pid:
    signal.alarm(500)
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
        make_cache().config.bucket.name,
        server.token,
    )
    assert ended.status == 0, ended.stderr
    assert ended.stdout == "NotSent('The connection has been closed')\nTrue\nkey other"


def test_a_child_forked_while_a_watch_waits_is_woken(
    make_cache: MakeCache, server: NatsServer
) -> None:
    """The child is forked by a signal handler, on the thread that waits."""
    ended = run_script(
        """
import os, signal, threading
from django_nats.exceptions import NatsError
signal.alarm(510)
print("ready", flush=True)
sys.stdin.readline()
children = []
def fork(*args):
    children.append(os.fork())
    if children == [0]:
        signal.alarm(500)
    else:
        # Started here because threads do not survive in a forked child.
        threading.Thread(target=lambda: (os.waitpid(children[0], 0), cache.set("key", 1))).start()
signal.signal(signal.SIGUSR1, fork)
changes = iter(cache.watch())
next(changes)
def interrupt():
    from django_nats.client import drivers, process
    me = threading.main_thread().ident
    while sys._current_frames()[me].f_code is not drivers._is_released.__code__:
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
        make_cache().config.bucket.name,
        server.token,
    )
    assert ended.status == 0, ended.stderr
    assert ended.stdout == "NotSent('The connection has been closed')\nkey", ended.stderr


def test_exiting_the_process_during_a_watch_prints_nothing(
    make_cache: MakeCache, server: NatsServer
) -> None:
    # Registered before the package's own handler, so it runs after it: a thread has time to fail.
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
assert begun.wait(60)
""",
        server.url,
        make_cache().config.bucket.name,
        server.token,
        prelude=linger + scripts._PRELUDE,
    )
    assert (ended.status, ended.stderr) == (0, "")


def test_a_signal_handler_may_use_the_cache_while_the_reader_begins_to_wait(
    make_cache: MakeCache, server: NatsServer
) -> None:
    """The handler's operation takes the change that the interrupted thread waits for."""
    ended = run_script(
        """
import faulthandler, threading
faulthandler.dump_traceback_later(500, exit=True)  # ends and shows a script that hangs
from django_nats.client import drivers, process
print("ready", flush=True)
sys.stdin.readline()
changes = iter(cache.watch())
next(changes)
mailbox = process._living_watchers()[0]._listener
waiting = drivers._wait_for, drivers._is_released, threading.Event.wait, threading.Condition.wait
waits = {each.__code__ for each in waiting}
def trace(frame, event, arg):
    # A handler runs between two lines: here, before the line whose turn it is.
    global left
    if frame.f_code not in waits:
        return None
    if event == "line":
        left -= 1
        if left == 0:
            waiting_before = len(mailbox._changes)
            cache.set("handled", 1)
            while len(mailbox._changes) == waiting_before:
                cache.get("handled")
    return trace
at, patience = 0, 1
while patience:
    at += patience == 1
    left = at
    later = threading.Timer(patience, cache.set, ["no such line", 1])
    later.start()
    sys.settrace(trace)
    found = next(changes).key
    sys.settrace(None)
    later.cancel()
    later.join()
    cache.set("end", 1)
    while found != "end" and next(changes).key != "end":
        pass
    # On a stalled machine the timer may have fired before the line: try again with a longer one.
    patience = 1 if left <= 0 else {1: 3, 3: 0}[patience]
print(at > 5, found)
changes.close()
""",
        server.url,
        make_cache().config.bucket.name,
        server.token,
    )
    assert (ended.status, ended.stdout) == (0, "True no such line"), ended.stderr
