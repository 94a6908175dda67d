"""Typed and checked access to a dict of options."""

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
    """Options whose repr holds no values, since Django's debug page shows every local variable."""

    def __repr__(self) -> str:
        """Return the names of the options."""
        return f"<options {', '.join(map(str, self))}>"


class Reader:
    """Typed and checked access to options.

    Every method raises ImproperlyConfigured if an option is not valid. Its message names the
    setting and the option, and never holds a secret.
    """

    def __init__(self, where: str, options: Mapping[str, Any], place: str = "") -> None:
        """Read ``options``, which error messages call ``where``, such as CACHES["default"].

        ``place`` is where a message tells the user to add an option, if that is elsewhere.
        """
        self.where = where
        self.options = options
        self.place = place or where

    def fail(self, option: str, problem: str) -> NoReturn:
        """Raise ImproperlyConfigured for an option. ``problem`` is a predicate without a period."""
        raise ImproperlyConfigured(f"{self.where}: {option} {problem}.")

    def refuse_unknown(self, known: Iterable[str]) -> None:
        """Raise ImproperlyConfigured if there is an option that is not known."""
        known = set(known)
        for option in self.options:
            if option not in known:
                from .django_redis import hint_for  # needed after a mistake only

                hint = hint_for(option) or _hint(option, known)
                raise ImproperlyConfigured(f"{self.where}: unknown option {option!r}. {hint}")

    def text(self, option: str, default: str = "") -> str:
        """Return a string. A Path is converted to one."""
        value = self.options.get(option, default)
        if isinstance(value, Path):
            value = str(value)
        if not isinstance(value, str):
            self.fail(option, f"must be a string, not {type(value).__name__}")
        return str(value)

    def boolean(self, option: str, default: bool) -> bool:
        """Return True or False. No other value is accepted."""
        value = self.options.get(option, default)
        if not isinstance(value, bool):
            self.fail(option, f"must be True or False, not {value!r}")
        return bool(value)

    def choice(self, option: str, default: str | None = None) -> str:
        """Return one of the option's possible values, by default the first."""
        choices = _CHOICES[option]
        value = self.options.get(option, default or choices[0])
        if value not in choices:
            self.fail(option, f"is {value!r}; it must be {' or '.join(map(repr, choices))}")
        return str(value)

    def whole(self, option: str, default: int) -> int:
        """Return an integer of at least 1, or of at least 0 if the default is 0."""
        value = self.options.get(option, default)
        least = min(default, 1)
        if type(value) is not int or value < least:
            self.fail(option, f"must be an integer of at least {least}, not {value!r}")
        return int(value)

    def seconds(self, option: str, default: float) -> float:
        """Return a number of seconds, above 0 and below an hour."""
        value = self.options.get(option, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 3600:
            self.fail(option, f"must be a number of seconds above 0 and below 3600, not {value!r}")
        return float(value)

    def size(self, option: str, least: int = 1) -> int | None:
        """Return a number of bytes, or None if the option is absent.

        The option may be a number, or text such as "64MiB".
        """
        value = self.options.get(option)
        if value is None:
            return None
        match = re.fullmatch(r"\s*(\d+)\s*([a-zA-Z]*)\s*", str(value))
        size = int(match[1]) * _UNITS.get(match[2], -1) if match else -1
        if size < least:
            self.fail(option, f'must be a number of bytes or a size like "64MiB", not {value!r}')
        return size

    def mapping(self, option: str, known: set[str]) -> dict[str, Any]:
        """Return a dict that has no members but the known ones. Paths are converted to strings."""
        value = self.options.get(option, {})
        if not isinstance(value, Mapping):
            self.fail(option, f"must be a dict with {', '.join(sorted(known))}")
        for name in value:
            if name not in known:
                problem = f"{option} has an unknown member {name!r}"
                raise ImproperlyConfigured(f"{self.where}: {problem}. {_hint(name, known)}")
        return {name: str(each) if isinstance(each, Path) else each for name, each in value.items()}


def is_nearly(text: str, word: str) -> bool:
    """Return True if a text is a word with a mistake in it."""
    from difflib import get_close_matches  # needed after a mistake only

    return bool(get_close_matches(text.lower(), [word], cutoff=0.8))


def _hint(option: object, known: Iterable[str]) -> str:
    from difflib import get_close_matches  # needed after a mistake only

    name = str(option).upper()
    close = get_close_matches(name, known)
    close.sort(key=lambda each: each[0] != name[0])  # CREDS stands for CREDENTIALS, not for READS
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(sorted(known))}."
