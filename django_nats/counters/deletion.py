"""Counters go with their rows: after the commit, and without harm to it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from ..client.steps import Steps
from ..client.twins import twins
from ..exceptions import NatsError
from . import later
from .collection import Counters

logger = logging.getLogger("django_nats")


class _Purging(Counters):
    def _purge(self, subjects: Sequence[str]) -> Steps[None]:
        yield from self.stream.purge(subjects)

    purge, apurge = twins(_purge)


class _Purge:
    """What is to be purged after one commit."""

    def __init__(self) -> None:
        self._subjects: dict[str, list[str]] = {}

    def add(self, alias: str, subject: str) -> None:
        self._subjects.setdefault(alias, []).append(subject)

    def __call__(self) -> None:
        for alias, subjects in self._subjects.items():
            later.forget(alias, subjects)  # or they would come back
            try:
                _Purging(alias).purge(subjects)
            except (NatsError, ImproperlyConfigured) as error:
                # The rows are gone: nothing that is raised here could bring them back.
                logger.warning(
                    "Not all of %d counters of deleted rows are purged; "
                    "manage.py nats counters prune sweeps what is left: %s",
                    len(subjects),
                    error,
                )


def purge_on_commit(alias: str, subject: str, database: str) -> None:
    """Purge a counter once the database's transaction is committed, together with others."""
    connection = transaction.get_connection(database)
    hooks = connection.run_on_commit
    last = hooks[-1][1] if hooks else None
    # Not into one that a rollback to another savepoint would drop, or keep.
    if isinstance(last, _Purge) and hooks[-1][0] == set(connection.savepoint_ids):
        last.add(alias, subject)
        return
    purge = _Purge()
    purge.add(alias, subject)
    transaction.on_commit(purge, using=database)
