"""What every subcommand of ``manage.py nats`` is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from django.core.management.base import CommandParser, OutputWrapper
from django.core.management.color import Style

NOTHING = (
    "Nothing is kept on NATS: no alias of CACHES is served by django_nats.cache.NatsCache, and "
    "there is no setting NATS_COUNTERS."
)


class Subcommand(ABC):
    """A name, a help text, arguments and a deed; commands/nats.py lists them all."""

    name: ClassVar[str]
    help: ClassVar[str]

    def __init__(self, stdout: OutputWrapper, stderr: OutputWrapper, style: Style) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.style = style

    @classmethod
    @abstractmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        """Declare the subcommand's own arguments."""

    @abstractmethod
    def handle(self, options: Mapping[str, Any]) -> None:
        """Do it. Raises CommandError for an exit status of 1."""


class Group:
    """A name for several subcommands: ``manage.py nats counters top``."""

    def __init__(self, name: str, help: str, *members: type[Subcommand]) -> None:
        self.name = name
        self.help = help
        self.members = members
