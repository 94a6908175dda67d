"""The operations that are measured, with what they need stored and their correct results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count, cycle, islice, repeat
from typing import Any, NamedTuple

from .measuring import TIMEOUT, value

BATCH = 100
"""The number of calls that are prepared together, and then made one after the other."""

TASKS = "tasks of one program"
"""The value of ``callers`` in a cell whose coroutines are not requests."""

Arguments = tuple[Any, ...]


def _nothing_to_keep() -> bool:
    return True


class Operation(NamedTuple):
    """One method of a cache, which one caller calls repeatedly."""

    method: str
    """The name of the sync method. That of the async method begins with "a"."""
    store: Callable[[], object]
    """Stores the values that the calls read. To be called once, in any process."""
    batch: Callable[[], Iterable[Arguments]]
    """Prepares the cache for BATCH calls, and returns their arguments."""
    right: Callable[[Any], bool]
    """Returns True if a result is correct. To be called once for each result, in order."""
    kept: Callable[[], bool] = _nothing_to_keep
    """Returns True if the cache has the values that the calls wrote. To be called at the end."""


def operation(cache: Any, name: str, *, size: int, keys: int = 1, caller: int = 0) -> Operation:
    """Return the operation that cells call ``name``, on keys that no other caller uses.

    ``keys`` is the number of keys of one get_many or set_many.
    """
    return _OPERATIONS[name](cache, value(size), f"{caller}:key", keys)


class _Turns:
    """Different values to be written in turn.

    ``last`` is the last one that was written, by which a lost write is detected.
    """

    def __init__(self, make: Callable[[str], Any], stored: str) -> None:
        self._values = [make(stored[turn:] + stored[:turn]) for turn in range(7)]
        self.last: Any = None

    def __iter__(self) -> Iterator[Any]:
        for each in islice(cycle(self._values), BATCH):
            self.last = each
            yield each


def _nothing() -> None:
    return None


def _get(cache: Any, stored: str, key: str, keys: int) -> Operation:
    return Operation(
        "get",
        lambda: cache.set(key, stored, TIMEOUT),
        lambda: repeat((key,), BATCH),
        lambda result: bool(result == stored),
    )


def _miss(cache: Any, stored: str, key: str, keys: int) -> Operation:
    absent = f"{key}:absent"
    return Operation(
        "get", _nothing, lambda: repeat((absent,), BATCH), lambda result: result is None
    )


def _set(cache: Any, stored: str, key: str, keys: int) -> Operation:
    turns = _Turns(str, stored)
    return Operation(
        "set",
        _nothing,
        lambda: ((key, text, TIMEOUT) for text in turns),
        lambda result: result in (None, True),
        lambda: bool(cache.get(key) == turns.last),
    )


def _add(cache: Any, stored: str, key: str, keys: int) -> Operation:
    names = [f"{key}:{number}" for number in range(BATCH)]

    def batch() -> Iterable[Arguments]:
        cache.delete_many(names)
        return ((name, stored, TIMEOUT) for name in names)

    return Operation(
        "add",
        _nothing,
        batch,
        lambda result: result is True,
        lambda: bool(cache.get(names[0]) == stored),
    )


def _delete(cache: Any, stored: str, key: str, keys: int) -> Operation:
    names = [f"{key}:{number}" for number in range(BATCH)]

    def batch() -> Iterable[Arguments]:
        cache.set_many(dict.fromkeys(names, stored), TIMEOUT)
        return ((name,) for name in names)

    return Operation("delete", _nothing, batch, bool, lambda: cache.get(names[0]) is None)


def _incr(cache: Any, stored: str, key: str, keys: int) -> Operation:
    counter = f"{key}:counter"
    numbers = count(1)
    return Operation(
        "incr",
        lambda: cache.set(counter, 0, TIMEOUT),
        lambda: repeat((counter,), BATCH),
        lambda result: bool(result == next(numbers)),
    )


def _get_many(cache: Any, stored: str, key: str, keys: int) -> Operation:
    data = _data(stored, key, keys)
    return Operation(
        "get_many",
        lambda: cache.set_many(data, TIMEOUT),
        lambda: repeat((list(data),), BATCH),
        lambda result: bool(result == data),
    )


def _set_many(cache: Any, stored: str, key: str, keys: int) -> Operation:
    turns = _Turns(lambda text: _data(text, key, keys), stored)
    return Operation(
        "set_many",
        _nothing,
        lambda: ((data, TIMEOUT) for data in turns),
        lambda result: not result,
        lambda: bool(cache.get_many(list(turns.last)) == turns.last),
    )


def _data(stored: str, key: str, keys: int) -> dict[str, str]:
    return {f"{key}:{number}": stored for number in range(keys)}


_OPERATIONS: dict[str, Callable[[Any, str, str, int], Operation]] = {
    "get": _get,
    "miss": _miss,
    "set": _set,
    "add": _add,
    "incr": _incr,
    "delete": _delete,
    "get_many": _get_many,
    "set_many": _set_many,
}
