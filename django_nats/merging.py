"""What two callers have changed in a dictionary, brought together.

Pure functions, on the keys of one dictionary. A value is changed as a whole: what is within it is
not merged.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

GONE: Any = object()
"""Stands for the new value of a key that was deleted."""


def changes(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the keys that differ, with their values in ``after``, or GONE."""
    found = {
        key: value
        for key, value in after.items()
        if key not in before or not _is_same(before[key], value)
    }
    return found | dict.fromkeys(before.keys() - after.keys(), GONE)


def apply(changed: Mapping[Any, Any], to: MutableMapping[Any, Any]) -> None:
    """Make the changes that ``changes()`` has returned."""
    for key, value in changed.items():
        if value is GONE:
            to.pop(key, None)
        else:
            to[key] = value


def merge(
    ours: MutableMapping[Any, Any],
    theirs: Mapping[Any, Any],
    *,
    base: Mapping[Any, Any],
    as_read: Callable[[Mapping[Any, Any]], Mapping[Any, Any]] = lambda data: data,
) -> None:
    """Make in ``ours`` what another caller has changed between ``base`` and ``theirs``.

    ``ours`` was ``base``, too, before it was changed. A key that both have changed stays as it is,
    and so does every value that the other caller has not changed: it is the same object as before.

    ``base`` and ``theirs`` were read from a store, and ``ours`` may have values that it restores as
    others, such as a tuple as a list. ``as_read`` returns a dictionary as the store would restore
    it, so that these do not count as changes. It is called only if there is something to merge.
    """
    others = changes(base, theirs)
    if not others:
        return
    own = changes(base, as_read(ours))
    apply({key: value for key, value in others.items() if key not in own}, to=ours)


def _is_same(one: object, another: object) -> bool:
    """Return True if two values have the same pickle.

    Unlike ``==``, that tells True from 1, and an object from an equal one with other attributes.
    """
    try:
        return pickle.dumps(one) == pickle.dumps(another)
    except Exception:
        return False
