"""Feature flags: rows of the database that every process reads from its near cache."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, NamedTuple, cast

from django.core.cache import cache
from django.db import transaction
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from testproject.magazine.models import Flag


class Setting(NamedTuple):
    """The value that the cache has for a flag."""

    on: bool
    written: float | None
    """The time.time() at which a process wrote the changed flag to the cache.

    None if the flag was read from the database.
    """


def key(name: str) -> str:
    """Return the cache's key for a flag."""
    return f"flags:{name}"


def read(name: str) -> Setting:
    """Return the setting of a flag, from the cache if possible. An unknown flag is off."""
    return cast(Setting, cache.get_or_set(key(name), partial(_find, name)))


def enabled(name: str) -> bool:
    """Return True if a flag is on."""
    return read(name).on


def _find(name: str) -> Setting:
    return Setting(Flag.objects.filter(name=name, on=True).exists(), None)


# The receivers write to the cache after the commit, so that no process sees a change that may be
# rolled back. With robust=True, a flag can be saved while the cache is unavailable. The cache then
# holds the old setting until its timeout.


@receiver(post_save, sender=Flag)
def saved(instance: Flag, **kwargs: Any) -> None:
    """Write a flag to the cache, after the commit."""
    name, on = instance.name, instance.on
    transaction.on_commit(lambda: cache.set(key(name), Setting(on, time.time())), robust=True)


@receiver(post_delete, sender=Flag)
def deleted(instance: Flag, **kwargs: Any) -> None:
    """Delete a flag from the cache, after the commit."""
    name = instance.name
    transaction.on_commit(lambda: cache.delete(key(name)), robust=True)
