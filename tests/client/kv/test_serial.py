"""Serial runs functions one at a time, in any thread, without deadlocks."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import pytest

from django_nats.client.kv import serial as module
from django_nats.client.kv.serial import Serial


def do_nothing() -> None:
    pass


def test_functions_run_at_once_and_in_order() -> None:
    serial, done = Serial(do_nothing), list[int]()
    for number in range(3):
        assert serial.run(lambda number=number: done.append(number))
    assert done == [0, 1, 2]


def test_a_nested_function_runs_after_the_outer_one() -> None:
    """A signal handler calls run() in this way in the middle of an update."""
    serial, done = Serial(do_nothing), list[str]()

    def outer() -> None:
        assert not serial.run(lambda: done.append("within"))
        done.append("outer")

    assert serial.run(outer)
    assert done == ["outer", "within"]


def test_a_function_is_left_to_the_running_thread_after_a_short_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    serial, done = Serial(do_nothing), list[str]()
    inside, leave = threading.Event(), threading.Event()

    def interrupted() -> None:
        inside.set()
        assert leave.wait(30)
        done.append("first")

    thread = threading.Thread(target=lambda: serial.run(interrupted))
    thread.start()
    assert inside.wait(30)
    assert not serial.run(lambda: done.append("second"))
    assert len(serial) == 1
    leave.set()
    thread.join()
    assert done == ["first", "second"]
    assert serial.run(lambda: done.append("third"))
    assert (len(serial), done[-1]) == (0, "third")


def test_an_interrupted_function_triggers_a_restart() -> None:
    restarts = list[str]()
    serial = Serial(lambda: restarts.append("restarted"))

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serial.run(interrupted)
    assert restarts == ["restarted"]
    assert serial.run(do_nothing)
    assert restarts == ["restarted"]


def test_too_many_waiting_functions_are_dropped_and_trigger_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 5)
    restarts, done = list[str](), list[int]()
    serial = Serial(lambda: restarts.append("restarted"))

    def outer() -> None:
        for number in range(6):
            serial.run(lambda number=number: done.append(number))

    serial.run(outer)
    assert (len(serial), done) == (0, [])
    assert serial.run(do_nothing)
    assert restarts == ["restarted"]


def test_functions_of_several_threads_never_overlap() -> None:
    serial = Serial(do_nothing)
    total = 0

    def add() -> None:
        nonlocal total
        before = total
        total = before + 1

    def work() -> None:
        for _ in range(2000):
            serial.run(add)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    serial.run(do_nothing)
    assert total == 16_000


def test_functions_may_be_dropped_just_before_the_first_is_run() -> None:
    class Dropping(deque[Callable[[], object]]):
        def popleft(self) -> Callable[[], object]:
            self.clear()  # as another thread does after too many
            return super().popleft()

    serial, done = Serial(do_nothing), list[int]()
    serial._todo = Dropping()
    assert serial.run(lambda: done.append(1))
    assert done == []
