"""The thread that sends key_changed: started once, by whoever comes first, without waiting."""

from __future__ import annotations

import threading
from _thread import start_new_thread
from collections.abc import Callable

import pytest

from django_nats.nearcache import announce
from django_nats.nearcache.announce import Announcer
from tests.support.scripts import run_script


def put(announcer: Announcer) -> threading.Event:
    """Announce something; set when that has been done."""
    announced = threading.Event()
    announcer.put(announced.set, announced.set)
    return announced


def test_a_thread_that_could_not_be_started_is_started_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(function: Callable[[], None], arguments: tuple[()]) -> int:
        raise RuntimeError("can't start new thread")

    announcer = Announcer()
    monkeypatch.setattr(announce, "start_new_thread", fail)
    first = put(announcer)
    monkeypatch.setattr(announce, "start_new_thread", start_new_thread)
    second = put(announcer)
    assert first.wait(30)
    assert second.wait(30)


def test_of_two_that_are_started_at_once_one_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = threading.Event()

    def twice(function: Callable[[], None], arguments: tuple[()]) -> int:
        def run() -> None:
            function()
            gone.set()

        start_new_thread(run, ())
        return start_new_thread(run, ())

    monkeypatch.setattr(announce, "start_new_thread", twice)
    announcer = Announcer()
    assert put(announcer).wait(30)
    assert gone.wait(30)
    assert put(announcer).wait(30)


def test_nobody_waits_for_its_start() -> None:
    """Not one who has interrupted the start of another thread, either."""
    ended = run_script(
        """
import faulthandler, threading
from django_nats.nearcache.announce import announcer
faulthandler.dump_traceback_later(10, exit=True)  # whatever hangs is ended, and shown
print("ready", flush=True)
sys.stdin.readline()
announced = threading.Event()
with threading._active_limbo_lock:  # that every new Thread waits for
    announcer.put(announced.set, announced.set)
    print(announced.is_set())
print(announced.wait(5))
""",
        "nats://127.0.0.1:1",
        "bucket",
        "token",
    )
    assert (ended.status, ended.stdout) == (0, "False\nTrue"), ended.stderr
