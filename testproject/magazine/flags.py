"""Feature flags: rows of the database, which every process reads from its near cache."""

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
    on: bool
    written: float | None
    """When the process that flipped it wrote it, in seconds of this machine's clock; None for what
    was found in the database."""


def key(name: str) -> str:
    return f"flags:{name}"


def read(name: str) -> Setting:
    """The setting of a flag, from the cache; a flag that does not exist is off."""
    return cast(Setting, cache.get_or_set(key(name), partial(_find, name)))


def enabled(name: str) -> bool:
    return read(name).on


def _find(name: str) -> Setting:
    return Setting(Flag.objects.filter(name=name, on=True).exists(), None)


# Nobody may see what is not committed. And a flag that is saved while the cache is away is saved
# all the same: robust. The cache's timeout ends what it then still says.


@receiver(post_save, sender=Flag)
def saved(instance: Flag, **kwargs: Any) -> None:
    name, on = instance.name, instance.on
    transaction.on_commit(lambda: cache.set(key(name), Setting(on, time.time())), robust=True)


@receiver(post_delete, sender=Flag)
def deleted(instance: Flag, **kwargs: Any) -> None:
    name = instance.name
    transaction.on_commit(lambda: cache.delete(key(name)), robust=True)
