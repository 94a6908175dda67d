"""What a process has learned a moment ago, in bounded memory."""

from __future__ import annotations

from typing import Any, Generic, TypeVar
from weakref import WeakSet

from django.core.signals import setting_changed

from ..realtime import monotonic

T = TypeVar("T")

LONGEST_S = 1.0
"""How long anything is remembered: for so long a process may not notice what others do."""
_GENERATION = 2048
"""Keys that are remembered at least, and at most twice as many."""


class Memory(Generic[T]):
    """Values by key, each for at most a second.

    Any thread may use it. A value that is lost to a race costs a question to the server.
    """

    def __init__(self) -> None:
        # In two generations: a flood of keys drops the older half, without sorting.
        self._young: dict[str, tuple[float, T]] = {}
        self._old: dict[str, tuple[float, T]] = {}
        _memories.add(self)

    def note(self, key: str, value: T, seconds: float = LONGEST_S) -> None:
        """Remember a value for a number of seconds, and for LONGEST_S at most."""
        self._young[key] = monotonic() + min(seconds, LONGEST_S), value
        if len(self._young) >= _GENERATION:
            self._old, self._young = self._young, {}

    def find(self, key: str) -> T | None:
        """Return the value of a key, or None if none is remembered."""
        found = self._young.get(key) or self._old.get(key)
        if found is None:
            return None
        until, value = found
        if monotonic() < until:
            return value
        self.forget(key)
        return None

    def forget(self, key: str) -> None:
        """Forget the value of a key."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def clear(self) -> None:
        """Forget all values."""
        self._young, self._old = {}, {}


_memories: WeakSet[Memory[Any]] = WeakSet()


def _on_setting_changed(*, setting: str, **kwargs: object) -> None:
    # What one server, or stream, has counted says nothing about another.
    if setting in ("NATS_COUNTERS", "NATS_LIMITS", "SECRET_KEY"):
        for each in tuple(_memories):
            each.clear()


setting_changed.connect(_on_setting_changed, dispatch_uid="django_nats.limits.memory")
