"""Aliases and names as command lines write them, and requests to the counters' server."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Concatenate, ParamSpec, TypeVar

from django.core.management.base import CommandParser

from ... import keys
from ...client import drivers
from ...client.counters.stream import CounterStream
from ...client.protocol.steps import Steps
from ...counters.collection import DEFAULT_ALIAS, Counters, subject_of
from ...exceptions import InvalidKey
from ...printable import printable

P = ParamSpec("P")
T = TypeVar("T")

BATCH = 1000
"""The number of counters, or rows, that are handled at once."""

_CHARACTER = re.compile(
    r"\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\\U000[0-9a-f]{5}|\\U0010[0-9a-f]{4}|\\.|.", re.DOTALL
)
_ESCAPES = {r"\n": "\n", r"\r": "\r", r"\t": "\t"}


def ask(
    alias: str,
    operation: Callable[Concatenate[CounterStream, P], Steps[T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run an operation on an alias's stream and return its result.

    Errors are raised even with FAIL_OPEN.
    """
    counters = Counters(alias)
    return drivers.run(counters.session, operation(counters.stream, *args, **kwargs))


def add_alias(parser: CommandParser) -> None:
    """Declare --alias."""
    parser.add_argument(
        "--alias",
        default=DEFAULT_ALIAS,
        help=f"The alias of NATS_COUNTERS. Default: {DEFAULT_ALIAS}.",
    )


def subject_named(text: str) -> str:
    r"""Return the subject of a counter, from its name as it is written in a shell or a file.

    Dots separate tokens. With a backslash before it, a dot is part of a token. Characters that
    cannot be printed are written as in Python: ``\x1b``, ``\u202e``. Raises InvalidKey if the name
    is not valid.

    >>> subject_named(r"clicks.eu.example\.com")
    'clicks.eu.example=2Ecom'
    """
    tokens = [""]
    for character in _CHARACTER.findall(text):
        if character == ".":
            tokens.append("")
        elif len(character) > 2:
            tokens[-1] += chr(int(character[2:], 16))
        else:
            tokens[-1] += _ESCAPES.get(character, character[-1])
    whole = ".".join(tokens)
    return subject_of(tuple(tokens) if whole.count(".") >= len(tokens) else whole)


def name_as_written(subject: str) -> str | None:
    """Return the name that subject_named() takes for a subject, or None if there is none."""
    with suppress(InvalidKey):
        parts = keys.counter_parts(subject)
        return printable(".".join(re.sub(r"[\\.]", r"\\\g<0>", each) for each in parts))
    with suppress(InvalidKey):
        return printable(re.sub(r"\\", r"\\\\", keys.counter_name(subject)))
    return None
