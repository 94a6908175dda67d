"""Asking for counters by the words of a command line: aliases and names."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Concatenate, ParamSpec, TypeVar

from django.core.management.base import CommandParser

from ... import keys
from ...client import bridge
from ...client.counters import CounterStream
from ...client.steps import Steps
from ...counters.collection import DEFAULT_ALIAS, Counters, subject_of
from ...exceptions import InvalidKey

P = ParamSpec("P")
T = TypeVar("T")

BATCH = 1000
"""Counters, and rows, at once."""


def ask(
    alias: str,
    operation: Callable[Concatenate[CounterStream, P], Steps[T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """What an operation on an alias's stream answers; its errors are raised, FAIL_OPEN or not."""
    counters = Counters(alias)
    return bridge.run(counters.session, operation(counters.stream, *args, **kwargs))


def add_alias(parser: CommandParser) -> None:
    parser.add_argument(
        "--alias",
        default=DEFAULT_ALIAS,
        help=f"The alias of NATS_COUNTERS; {DEFAULT_ALIAS} unless given.",
    )


def subject_named(text: str) -> str:
    r"""The subject of a counter by its name as one writes it in a shell or a file.

    Dots separate tokens; with a backslash before it, a dot is part of one. Raises InvalidKey.

    >>> subject_named(r"clicks.eu.example\.com")
    'clicks.eu.example=2Ecom'
    """
    tokens = [""]
    for character in re.findall(r"\\.|.", text, re.DOTALL):
        if character == ".":
            tokens.append("")
        else:
            tokens[-1] += character[-1]
    whole = ".".join(tokens)
    return subject_of(tuple(tokens) if whole.count(".") >= len(tokens) else whole)


def name_as_written(subject: str) -> str | None:
    """What ``subject_named`` takes for a subject; None for one that no name is written as."""
    with suppress(InvalidKey):
        return ".".join(re.sub(r"[\\.]", r"\\\g<0>", each) for each in keys.counter_parts(subject))
    with suppress(InvalidKey):
        return re.sub(r"\\", r"\\\\", keys.counter_name(subject))
    return None
