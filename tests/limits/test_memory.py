"""What a process remembers for a moment."""

from __future__ import annotations

import pytest

from django_nats.limits import memory as memory_module
from django_nats.limits.memory import Memory
from tests.support.answers import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(memory_module, "monotonic", made)
    return made


def test_a_value_is_remembered_for_its_time(clock: Clock) -> None:
    memory: Memory[int] = Memory()
    memory.note("a", 1, seconds=0.5)
    clock.now += 0.49
    assert memory.find("a") == 1
    clock.now += 0.02
    assert memory.find("a") is None


def test_no_value_is_remembered_for_more_than_a_second(clock: Clock) -> None:
    memory: Memory[int] = Memory()
    memory.note("a", 1, seconds=3600)
    clock.now += 1.01
    assert memory.find("a") is None


def test_a_value_of_0_is_a_value(clock: Clock) -> None:
    memory: Memory[int] = Memory()
    memory.note("a", 0)
    assert memory.find("a") == 0


def test_a_forgotten_value_is_gone(clock: Clock) -> None:
    memory: Memory[int] = Memory()
    memory.note("a", 1)
    memory.forget("a")
    memory.forget("b")
    assert memory.find("a") is None


def test_a_flood_of_keys_takes_bounded_memory_and_drops_the_oldest(clock: Clock) -> None:
    memory: Memory[int] = Memory()
    for number in range(20_000):
        memory.note(str(number), number)
    held = [number for number in range(20_000) if memory.find(str(number)) is not None]
    assert held == list(range(20_000 - len(held), 20_000))
    assert 2048 <= len(held) <= 4098
