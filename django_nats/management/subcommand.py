"""What every subcommand of ``manage.py nats`` is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from django.core.management.base import CommandParser, OutputWrapper
from django.core.management.color import Style

NO_ALIAS = "No alias of CACHES is served by django_nats.cache.NatsCache."


class Subcommand(ABC):
    """A name, a help text, arguments and a deed; commands/nats.py lists them all."""

    name: ClassVar[str]
    help: ClassVar[str]

    def __init__(self, stdout: OutputWrapper, style: Style) -> None:
        self.stdout = stdout
        self.style = style

    @classmethod
    @abstractmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        """Declare the subcommand's own arguments."""

    @abstractmethod
    def handle(self, options: Mapping[str, Any]) -> None:
        """Do it. Raises CommandError for an exit status of 1."""
