"""Purge the counters of deleted rows, after the commit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from weakref import ref

from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from ..client.protocol.steps import Steps
from ..exceptions import NatsError
from ..printable import counted
from . import write_behind
from .collection import Counters

logger = logging.getLogger("django_nats")


class _PurgingCounters(Counters):
    def purge(self, subjects: Sequence[str]) -> None:
        """Reset counters, named by their subjects, to 0. Not repeated if it fails."""
        return self._run(self._purge(subjects))

    def _purge(self, subjects: Sequence[str]) -> Steps[None]:
        yield from self.stream.purge(subjects)


class _PurgeOnCommit:
    """A commit hook that purges the counters of the rows of one deletion.

    The first such hook to run also purges the counters of those that follow it in its chain, so
    that the deletions of a transaction take one round trip.
    """

    def __init__(self, origin: object, chain: list[_PurgeOnCommit]) -> None:
        """Add a hook to a chain. ``origin`` is the object or the queryset that is deleted."""
        # A queryset holds all its rows, which must not stay in memory until the commit.
        self._origin = None if origin is None else ref(origin)
        self._subjects: dict[str, dict[str, None]] = {}
        self.chain = chain
        chain.append(self)

    def is_about(self, origin: object, alias: str, subject: str) -> bool:
        """Return whether a counter belongs to the same deletion."""
        # An object can be saved and deleted again. Then one of its counters comes again, too.
        same = self._origin is not None and self._origin() is origin
        return same and subject not in self._subjects.get(alias, ())

    def add(self, alias: str, subject: str) -> None:
        """Add a counter to those that are purged."""
        self._subjects.setdefault(alias, {})[subject] = None

    def __call__(self) -> None:
        """Purge the counters, unless an earlier hook has done it."""
        if self not in self.chain:
            return
        # Earlier hooks that have not run belong to deletions that are not committed, as far as
        # captureOnCommitCallbacks() is concerned: it runs only what was added in its block.
        position = self.chain.index(self)
        subjects: dict[str, list[str]] = {}
        for hook in self.chain[position:]:
            for alias, added in hook._subjects.items():
                subjects.setdefault(alias, []).extend(added)
        del self.chain[position:]
        for alias, together in subjects.items():
            _purge(alias, together)


def _purge(alias: str, subjects: Sequence[str]) -> None:
    # Pending increments would create the counters again.
    write_behind.forget(alias, subjects)
    try:
        _PurgingCounters(alias).purge(subjects)
    except (NatsError, ImproperlyConfigured) as error:
        # The commit stands: raising would not bring the rows back.
        logger.warning(
            "Not all counters of deleted rows could be purged (%s). `manage.py nats counters "
            "prune` removes those that are left. The error: %s",
            counted(len(subjects), "counter"),
            error,
        )


def purge_on_commit(alias: str, subject: str, database: str, origin: object) -> None:
    """Purge a counter, together with others, once the database's transaction is committed.

    ``origin`` is the object or the queryset whose deletion deletes the counter's row.
    """
    connection = transaction.get_connection(database)
    hooks = connection.run_on_commit
    last = hooks[-1][1] if hooks else None
    # Hooks share a chain only if they belong to the same savepoints: a rollback to a savepoint
    # must drop the purges of exactly the deletions that it undoes.
    chain: list[_PurgeOnCommit] = []
    if isinstance(last, _PurgeOnCommit) and hooks[-1][0] == set(connection.savepoint_ids):
        if last.is_about(origin, alias, subject):
            last.add(alias, subject)
            return
        chain = last.chain
    purge = _PurgeOnCommit(origin, chain)
    purge.add(alias, subject)
    transaction.on_commit(purge, using=database)
