"""The thread that sends key_changed: the first announcement starts it, without waiting."""

from __future__ import annotations

import threading
from _thread import start_new_thread
from collections.abc import Callable

import pytest

from django_nats.nearcache import announce
from django_nats.nearcache.announce import Announcer
from tests.support.scripts import run_script


def put(announcer: Announcer) -> threading.Event:
    """Announce something. Return an event that is set once it has been announced."""
    announced = threading.Event()
    announcer.put(announced.set, announced.set)
    return announced


def test_the_next_announcement_starts_a_thread_that_could_not_be_started(
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


def test_one_of_two_threads_started_at_once_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    one_ended = threading.Event()

    def start_two(function: Callable[[], None], arguments: tuple[()]) -> int:
        def run() -> None:
            function()
            one_ended.set()

        start_new_thread(run, ())
        return start_new_thread(run, ())

    monkeypatch.setattr(announce, "start_new_thread", start_two)
    announcer = Announcer()
    assert put(announcer).wait(30)
    assert one_ended.wait(30)
    assert put(announcer).wait(30)


def test_announcing_does_not_wait_for_the_thread_to_start() -> None:
    """A signal handler may announce while it interrupts the start of another thread."""
    ended = run_script(
        """
import faulthandler, threading
from django_nats.nearcache.announce import announcer
faulthandler.dump_traceback_later(500, exit=True)  # ends and shows a script that hangs
print("ready", flush=True)
sys.stdin.readline()
announced = threading.Event()
with threading._active_limbo_lock:  # every new Thread waits for this lock
    announcer.put(announced.set, announced.set)
    print(announced.is_set())
print(announced.wait(60))
""",
        "nats://127.0.0.1:1",
        "bucket",
        "token",
    )
    assert (ended.status, ended.stdout) == (0, "False\nTrue"), ended.stderr
