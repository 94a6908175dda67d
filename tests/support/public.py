"""The public members of a class that this package defines."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any


def own_members(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield names and members: public methods and properties that the package defines."""
    for name in dir(kind):
        member = inspect.getattr_static(kind, name)
        function = member.fget if isinstance(member, property) else member
        function = getattr(function, "__func__", function)
        if name.startswith("_") or not inspect.isroutine(function):
            continue
        if str(getattr(function, "__module__", "")).startswith("django_nats."):
            yield name, member


def own_methods(kind: type) -> dict[str, Any]:
    """Return the public methods that the package defines, by name."""
    return {
        name: getattr(member, "__func__", member)
        for name, member in own_members(kind)
        if not isinstance(member, property)
    }


def own_properties(kind: type) -> dict[str, property]:
    """Return the public properties that the package defines, by name."""
    return {name: each for name, each in own_members(kind) if isinstance(each, property)}
