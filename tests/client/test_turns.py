"""One thing after the other, whoever does it, and nobody waits for who waits for him."""

from __future__ import annotations

import threading

import pytest

from django_nats.client import turns as module
from django_nats.client.turns import Turns


def nothing() -> None:
    pass


def test_it_is_done_at_once_and_in_order() -> None:
    turns, done = Turns(nothing), list[int]()
    for number in range(3):
        assert turns.take(lambda number=number: done.append(number))
    assert done == [0, 1, 2]


def test_who_asks_in_his_own_turn_is_not_waited_for_and_comes_after() -> None:
    """As a signal's handler does, in the middle of an update."""
    turns, done = Turns(nothing), list[str]()

    def outer() -> None:
        assert not turns.take(lambda: done.append("within"))
        done.append("outer")

    assert turns.take(outer)
    assert done == ["outer", "within"]


def test_another_does_not_wait_for_long_and_what_he_asked_is_done_by_who_has_his_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    turns, done = Turns(nothing), list[str]()
    inside, leave = threading.Event(), threading.Event()

    def interrupted() -> None:
        inside.set()
        assert leave.wait(30)
        done.append("first")

    thread = threading.Thread(target=lambda: turns.take(interrupted))
    thread.start()
    assert inside.wait(30)
    assert not turns.take(lambda: done.append("second"))
    assert len(turns) == 1
    leave.set()
    thread.join()
    assert done == ["first", "second"]
    assert turns.take(lambda: done.append("third"))
    assert (len(turns), done[-1]) == (0, "third")


def test_a_turn_that_is_interrupted_starts_over() -> None:
    begun = list[str]()
    turns = Turns(lambda: begun.append("over"))

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        turns.take(interrupted)
    assert begun == ["over"]
    assert turns.take(nothing)
    assert begun == ["over"]


def test_too_much_that_waits_is_dropped_and_all_starts_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST", 5)
    begun, done = list[str](), list[int]()
    turns = Turns(lambda: begun.append("over"))

    def outer() -> None:
        for number in range(6):
            turns.take(lambda number=number: done.append(number))

    turns.take(outer)
    assert (len(turns), done) == (0, [])
    assert turns.take(nothing)
    assert begun == ["over"]


def test_threads_exclude_each_other() -> None:
    turns = Turns(nothing)
    total = 0

    def add() -> None:
        nonlocal total
        before = total
        total = before + 1

    def work() -> None:
        for _ in range(2000):
            turns.take(add)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    turns.take(nothing)
    assert total == 16_000
