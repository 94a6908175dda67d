"""Increments of incr_later survive the exit of the process, forks and failing servers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from django.test import override_settings

from django_nats.client import process as client_process
from django_nats.counters import Counter, Counters
from django_nats.devserver import NatsServer
from django_nats.exceptions import CounterUnavailable
from tests.servers import eventually
from tests.support.cluster import Cluster
from tests.support.proxy import Proxy
from tests.support.scripts import Ended, run_script

_PRELUDE = """
import logging, os, sys
from django.conf import settings
settings.configure(
    SECRET_KEY="only-for-tests",
    NATS_COUNTERS={
        "default": {"LOCATION": sys.argv[1], "TOKEN": sys.argv[2], "FLUSH_INTERVAL": 3000}
    },
)
from django_nats.counters import Counter, counters, write_behind
DEFAULT_EXIT_TIMEOUT_S, write_behind._EXIT_TIMEOUT_S = write_behind._EXIT_TIMEOUT_S, 60.0
"""
_GO = """
print("ready", flush=True)
sys.stdin.readline()
"""

Script = Callable[..., Ended]


@pytest.fixture
def script(own_server: NatsServer) -> Script:
    """Return a function that runs a program which publishes by flush() and at exit."""

    def run(code: str, **kwargs: object) -> Ended:
        where = (own_server.url, own_server.token)
        return run_script(code, *where, prelude=_PRELUDE, **kwargs)  # type: ignore[arg-type]

    return run


def _assert_exits_cleanly(ended: Ended, stdout: str = "") -> None:
    assert (ended.status, ended.stdout, ended.stderr) == (0, stdout, "")


# The end -------------------------------------------------------------------------------------


def test_importing_starts_no_thread(script: Script) -> None:
    _assert_exits_cleanly(script(_GO + "import threading; print(threading.active_count())"), "1")


def test_pending_increments_are_published_at_exit(script: Script, total: Callable[[], int]) -> None:
    ended = script(_GO + "for _ in range(1000): counters.incr_later('k')")
    _assert_exits_cleanly(ended)
    assert total() == 1000


def test_increments_by_an_atexit_function_are_published(
    script: Script, total: Callable[[], int]
) -> None:
    """Even in Python 3.12, which starts no thread at exit."""
    code = "counters.incr('k'); import atexit; atexit.register(counters.incr_later, 'k', 5)"
    assert script(code + _GO).status == 0
    assert total() == 6


def test_increments_after_the_close_at_exit_are_reported_as_lost(
    own_server: NatsServer, total: Callable[[], int]
) -> None:
    """The atexit function was registered first, so it runs last, after the connection is closed."""
    late = """
import atexit
added = []
atexit.register(lambda: [counters.incr_later("k", n) for n in added])
"""
    for known, added in (("k", [5, 2]), ("", [5])):
        code = f"known = {known!r}\nif known: counters.incr_later(known)\nadded += {added}"
        where = (own_server.url, own_server.token)
        ended = run_script(code + _GO, *where, prelude=late + _PRELUDE)
        assert ended.status == 0
        assert total() == 1
        assert f"{sum(added):+d} in all, may be lost" in ended.stderr


def test_the_process_exits_cleanly_while_daemon_threads_increment(
    script: Script, total: Callable[[], int]
) -> None:
    ended = script(
        """
import threading
counters.incr("k")
begun = threading.Event()

def work():
    while True:
        counters.incr_later("k")
        begun.set()

for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
begun.wait()
"""
        + _GO
    )
    _assert_exits_cleanly(ended)
    assert total() > 1


def test_an_exit_while_the_server_is_away_reports_the_loss(
    script: Script, own_server: NatsServer
) -> None:
    """The exit waits for the exit timeout, not for DEADLINE, and logs what may be lost."""
    code = "settings.NATS_COUNTERS['default']['DEADLINE'] = 3000; counters.incr('k')"
    ended = script(
        code
        + _GO
        + "write_behind._EXIT_TIMEOUT_S = DEFAULT_EXIT_TIMEOUT_S; counters.incr_later('k', 7)",
        when_ready=lambda _: own_server.kill(),
    )
    assert ended.status == 0
    assert "increments of 1 counter of the stream COUNTERS, +7 in all, may be lost" in ended.stderr
    assert ended.seconds > 2.5


def test_increments_are_published_if_the_server_returns_before_the_exit(
    script: Script, own_server: NatsServer, total: Callable[[], int]
) -> None:
    def restart(_: object) -> None:
        own_server.kill()
        own_server.start()

    _assert_exits_cleanly(
        script(
            "logging.disable(); counters.incr('k')\n" + _GO + "counters.incr_later('k', 7)",
            when_ready=restart,
        )
    )
    assert total() == 8


@pytest.mark.parametrize("module", ["multiprocessing", "billiard"])
def test_a_forked_child_publishes_its_increments_at_its_end(
    script: Script, total: Callable[[], int], module: str
) -> None:
    """Such a child ends by os._exit, without atexit functions, and so do Celery's workers."""
    pytest.importorskip(module)
    ended = script(
        f"""
import {module}
counters.incr_later("k", 100)
"""
        + _GO
        + f"""
context = {module}.get_context("fork")
children = [context.Process(target=counters.incr_later, args=("k", 2)) for _ in range(3)]
for child in children: child.start()
for child in children: child.join()
print([child.exitcode for child in children])
"""
    )
    _assert_exits_cleanly(ended, "[0, 0, 0]")
    assert total() == 106


def test_pending_increments_go_to_the_server_of_their_settings(
    script: Script, total: Callable[[], int]
) -> None:
    """Settings are overridden after the increment and before it is published."""
    ended = script(
        """
from django.test import override_settings
counters.incr_later("k", 3)
with override_settings(NATS_COUNTERS={"default": {"LOCATION": "nats://127.0.0.1:1"}}):
    pass
"""
        + _GO
    )
    _assert_exits_cleanly(ended)
    assert total() == 3


# Servers that fail ---------------------------------------------------------------------------


@pytest.mark.faults
def test_a_flush_whose_acknowledgement_is_lost_counts_once(own_server: NatsServer) -> None:
    """The connection ends after the server has counted and before it acknowledges."""
    common = {"TOKEN": own_server.token, "STREAM": "C", "FLUSH_INTERVAL": 3000}
    common |= {"CONNECT_TIMEOUT": 60, "REQUEST_TIMEOUT": 60, "DEADLINE": 60}
    with Proxy(own_server.port) as proxy:
        aliases = {
            "past": {**common, "LOCATION": own_server.url},
            "through": {**common, "LOCATION": proxy.url},
        }
        with override_settings(NATS_COUNTERS=aliases), ThreadPoolExecutor(1) as pool:
            past, counters = Counter("k", alias="past"), Counters("through")
            for turn in range(1, 6):
                counters.get_many(["k"])  # connected
                counters.incr_later("k", 10)
                with proxy.losing(b"MSG") as lost:
                    flush = pool.submit(counters.flush)
                    assert eventually(lambda turn=turn: past >= 10 * turn)  # type: ignore[misc]
                    assert lost.wait(60)
                proxy.cut()
                flush.result()
                assert past == 10 * turn
            assert counters.stream.increments.recognised == 5
        client_process.close()


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_increments_count_once_while_leaders_are_killed_and_paused() -> None:
    with Cluster(3) as cluster:
        entry = {"LOCATION": cluster.urls, "TOKEN": cluster.token, "REPLICAS": 3, "STREAM": "C"}
        # An election takes longer on a busy machine.
        alias = {**entry, "FLUSH_INTERVAL": 0.01, "FLUSH_AT": 1000, "REQUEST_TIMEOUT": 0.5}
        alias["DEADLINE"] = 60
        with override_settings(NATS_COUNTERS={"default": alias}):
            counters, stop = Counters(), threading.Event()

            def work(number: int) -> int:
                added = 0
                while not stop.wait(0.001):
                    for name in "abc":
                        counters.incr_later(name)
                    counters.incr_later(("own", str(number)), -1)
                    added += 1
                return added

            counters.incr("life")
            with ThreadPoolExecutor(4) as pool:
                threads = [pool.submit(work, number) for number in range(4)]
                try:
                    for number, fault in enumerate((NatsServer.kill, NatsServer.pause) * 2, 2):
                        (before,) = _totals(counters, "a").values()
                        assert eventually(partial(_more_than, before), 60)
                        fault(cluster.leader("C"))
                        assert counters.incr("life") == number  # another node leads
                        cluster.mend()
                finally:
                    stop.set()
                added = [thread.result() for thread in threads]
            counters.flush()
            assert _totals(counters, *"abc") == dict.fromkeys("abc", sum(added))
            names = [("own", str(number)) for number in range(4)]
            assert _totals(counters, *names) == {
                name: -each for name, each in zip(names, added, strict=True)
            }
            assert counters.pending.counters == 0
        client_process.close()


def _totals(counters: Counters, *names: Any) -> dict[Any, int]:
    """Return the totals, retrying during elections."""
    found: dict[Any, int] = {}

    def read() -> bool:
        try:
            found.update(counters.get_many(names))
        except CounterUnavailable:
            return False
        return True

    assert eventually(read, 60)
    return found


def _more_than(before: int) -> bool:
    """Return True if the background thread has published more increments."""
    try:
        return Counter("a").value() > before
    except CounterUnavailable:
        return False


# Forks ---------------------------------------------------------------------------------------


def test_increments_pending_at_a_fork_are_published_once(
    script: Script, total: Callable[[], int]
) -> None:
    """The parent publishes them. Each process publishes later increments by its own thread."""
    ended = script(
        """
import threading
counters.incr_later("k", 1)
"""
        + _GO
        + """
children = []
for turn in range(3):
    counters.incr_later("k", 10)
    child = os.fork()
    if not child:
        assert counters.pending.counters == 0
        assert threading.active_count() == 1
        counters.incr_later("k", 100)
        assert "django-nats-counters" in {each.name for each in threading.enumerate()}
        sys.exit()
    children.append(child)
print([os.waitpid(child, 0)[1] for child in children])
"""
    )
    _assert_exits_cleanly(ended, "[0, 0, 0]")
    assert total() == 1 + 30 + 300


def test_the_first_increment_imports_and_starts_all_that_publishing_needs(script: Script) -> None:
    """The calling thread does the imports, since a fork during another thread's import leaves
    the module locked in the child. At exit Python 3.12 starts no thread."""
    ended = script(
        _GO
        + """
import threading
assert counters.pending.counters == 0
counters.incr_later("k")
print("nats" in sys.modules, *sorted(each.name for each in threading.enumerate()))
"""
    )
    _assert_exits_cleanly(ended, "True MainThread django-nats django-nats-counters")


def test_a_fork_loses_nothing_while_threads_increment_and_flush(
    script: Script, total: Callable[[], int]
) -> None:
    ended = script(
        """
import threading
counters.incr("k")
stop = threading.Event()
added = [0] * 4

def work(number):
    while not stop.is_set():
        counters.incr_later("k")
        added[number] += 1
        if not added[number] % 1000:
            counters.flush()

threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
"""
        + _GO
        + """
for turn in range(10):
    child = os.fork()
    if not child:
        counters.incr_later("k")
        counters.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads: thread.join()
print(1 + sum(added) + 10)
"""
    )
    _assert_exits_cleanly(ended, str(total()))
