"""The base classes of the subcommands of ``manage.py nats``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from django.core.management.base import CommandParser, OutputWrapper
from django.core.management.color import Style

from ..printable import printable_lines

NOTHING = (
    "Nothing is kept on NATS: no alias of CACHES has the backend django_nats.cache.NatsCache, and "
    "there is no setting NATS_COUNTERS."
)


class Terminal:
    """An output that escapes control characters, so that the server's text cannot use them."""

    def __init__(self, out: OutputWrapper, *, silent: bool = False) -> None:
        """Write to a command's output, or nowhere if ``silent``."""
        self._out = out
        self._silent = silent

    def write(self, text: str, style: Callable[[str], str] | None = None) -> None:
        """Write lines in a style, which must not be part of the text: it would be escaped."""
        if not self._silent:
            self._out.write(printable_lines(text), style)


class Subcommand(ABC):
    """A subcommand, with its name, help text and arguments.

    commands/nats.py and counters/__init__.py list them.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    silent_at_verbosity_0: ClassVar[bool] = True
    """Whether it reports what it has done, and does not show what it was asked for."""

    def __init__(
        self, stdout: OutputWrapper, stderr: OutputWrapper, style: Style, verbosity: int
    ) -> None:
        """Take the outputs, the style and the verbosity of the command."""
        self.silent = verbosity == 0 and self.silent_at_verbosity_0
        self.stdout = Terminal(stdout, silent=self.silent)
        self.stderr = stderr
        self.style = style

    @classmethod
    @abstractmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        """Declare the subcommand's own arguments."""

    @abstractmethod
    def handle(self, options: Mapping[str, Any]) -> None:
        """Run the subcommand. Raises CommandError for an exit status of 1."""


class Group:
    """Several subcommands under one name, as in ``manage.py nats counters top``."""

    def __init__(self, name: str, help: str, *members: type[Subcommand]) -> None:
        """Group subcommands."""
        self.name = name
        self.help = help
        self.members = members
