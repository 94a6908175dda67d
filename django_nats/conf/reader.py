"""Typed access to a dict of options."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from django.core.exceptions import ImproperlyConfigured

_CHOICES = {
    "STORAGE": ("memory", "file"),
    "PERSIST": ("sync", "async"),
    "COMPRESSION": ("none", "s2"),
    "READS": ("any", "leader"),
}
_UNITS = {"": 1, "B": 1, "kB": 1000}
for _power, _prefix in enumerate("KMGT", start=1):
    _UNITS[f"{_prefix}iB"] = 1024**_power
    _UNITS[f"{_prefix}B"] = 1000**_power


class Options(dict[str, Any]):
    """Options whose repr shows names only: Django's debug page prints every frame's variables."""

    def __repr__(self) -> str:
        return f"<options {', '.join(map(str, self))}>"


class Reader:
    """Typed access to options, with errors that name setting and option, but never a secret."""

    def __init__(self, where: str, options: Mapping[str, Any]) -> None:
        self.where = where
        self.options = options

    def fail(self, option: str, problem: str) -> NoReturn:
        raise ImproperlyConfigured(f"{self.where}: {option} {problem}.")

    def refuse_unknown(self, known: Iterable[str]) -> None:
        known = set(known)
        for option in self.options:
            if option not in known:
                hint = _hint(option, known)
                raise ImproperlyConfigured(f"{self.where}: unknown option {option!r}. {hint}")

    def text(self, option: str, default: str = "") -> str:
        value = self.options.get(option, default)
        if isinstance(value, Path):
            value = str(value)
        if not isinstance(value, str):
            self.fail(option, f"must be a string, not {type(value).__name__}")
        return str(value)

    def boolean(self, option: str, default: bool) -> bool:
        value = self.options.get(option, default)
        if not isinstance(value, bool):
            self.fail(option, f"must be True or False, not {value!r}")
        return bool(value)

    def choice(self, option: str, default: str | None = None) -> str:
        choices = _CHOICES[option]
        value = self.options.get(option, default or choices[0])
        if value not in choices:
            self.fail(option, f"is {value!r}; it can be {' or '.join(map(repr, choices))}")
        return str(value)

    def whole(self, option: str, default: int) -> int:
        value = self.options.get(option, default)
        if type(value) is not int or value < min(default, 1):
            self.fail(option, f"must be a whole number, not {value!r}")
        return int(value)

    def seconds(self, option: str, default: float) -> float:
        value = self.options.get(option, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 3600:
            self.fail(option, f"must be a number of seconds between 0 and 3600, not {value!r}")
        return float(value)

    def size(self, option: str, least: int = 1) -> int | None:
        """Bytes: a number, or text such as "64MiB"; None when the option is absent."""
        value = self.options.get(option)
        if value is None:
            return None
        match = re.fullmatch(r"\s*(\d+)\s*([a-zA-Z]*)\s*", str(value))
        size = int(match[1]) * _UNITS.get(match[2], -1) if match else -1
        if size < least:
            self.fail(option, f'must be a number of bytes or a size like "64MiB", not {value!r}')
        return size

    def mapping(self, option: str, known: set[str]) -> dict[str, Any]:
        value = self.options.get(option, {})
        if not isinstance(value, Mapping):
            self.fail(option, f"must be a dict with {', '.join(sorted(known))}")
        for name in value:
            if name not in known:
                problem = f"{option} has an unknown member {name!r}"
                raise ImproperlyConfigured(f"{self.where}: {problem}. {_hint(name, known)}")
        return {name: str(each) if isinstance(each, Path) else each for name, each in value.items()}


def _hint(option: object, known: Iterable[str]) -> str:
    from difflib import get_close_matches  # which only mistakes need

    close = get_close_matches(str(option).upper(), known, n=1)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(sorted(known))}."
