"""The counter of a row whose primary key cannot be part of a counter's name."""

from __future__ import annotations

import logging
from typing import NoReturn

from django.db import models

from ..exceptions import InvalidKey
from .bound import BoundCounter, Field

logger = logging.getLogger("django_nats")

_MAX_LOGGED = 1000
"""Rows for which a process logs that they have no counter; further ones are not logged."""
_logged: set[str] = set()


class NamelessCounter(BoundCounter):
    """The counter of a row whose primary key is empty or too long for a counter's name.

    One such row must not take down a page of many. Its total is unknown, and shown as empty.
    Operations and int() raise InvalidKey. The row is logged once.
    """

    __slots__ = ("_problem",)

    def __init__(self, field: Field, instance: models.Model, problem: str) -> None:
        """Bind a field's counter to an object, with the reason why it has no name."""
        self._field = field
        self._instance = instance
        self._problem = problem
        self.alias = field.alias
        if problem not in _logged and len(_logged) < _MAX_LOGGED:
            _logged.add(problem)
            logger.warning(
                "%s: a row has no counter, since its primary key cannot be part of a name. %s",
                field,
                problem,
            )

    @property
    def _subject(self) -> NoReturn:  # type: ignore[override]
        raise InvalidKey(self._problem)

    def __repr__(self) -> str:
        """Return the reason why the counter has no name."""
        return f"<{self._field}: no counter. {self._problem}>"

    def __reduce__(self) -> tuple[type[NamelessCounter], tuple[object, ...]]:
        """Pickle the counter together with its object."""
        return type(self), (self._field, self._instance, self._problem)

    def __int__(self) -> NoReturn:
        """Raise InvalidKey: the total is unknown, and always will be."""
        raise InvalidKey(self._problem)

    def keep(self, total: int | None) -> None:
        """Do nothing. The total stays unknown."""

    def _kept(self) -> tuple[int | None] | None:
        return (None,)
