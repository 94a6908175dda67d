"""Read totals from Redis: the integers that INCR counts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from django.core.management.base import CommandError

from ...counters.collection import subject_of
from ...exceptions import InvalidKey
from .asking import BATCH
from .seeding import ALREADY_SEEDED, Total

_MAX_EXAMPLES = 3
_INTEGER = re.compile(rb"-?\d+")


class RedisKeys:
    """The keys of a Redis server that match a glob, and the counters that they become.

    Redis is only read.
    """

    def __init__(self, url: str, glob: str, template: str | None) -> None:
        """Take the arguments of the command line, without connecting to Redis.

        Raises CommandError if the glob has wildcards other than ``*``.
        """
        if re.search(r"[?\[\]\\]", glob):
            raise CommandError(f"--match {glob}: * is the only wildcard that can be used.")
        self._url = url
        self._glob = glob
        self._template = template
        wildcard = r"(.*)"
        self._groups = re.compile(wildcard.join(map(re.escape, glob.split("*"))), re.DOTALL)
        self.skipped = 0
        """The number of keys that do not hold an integer."""
        self.examples: list[str] = []
        """A few of these keys."""

    def totals(self) -> Iterator[Total]:
        """Yield the total of each key that holds an integer.

        Raises CommandError if redis-py is not installed, Redis cannot be read, or a key does not
        become a valid name.
        """
        try:
            import redis
        except ImportError as error:
            raise CommandError("--redis needs redis-py: pip install redis") from error
        try:
            with redis.Redis.from_url(self._url) as client:
                yield from self._totals(client)
        except (redis.RedisError, ValueError) as error:
            # redis-py's messages hold no password. The URL may hold one.
            raise CommandError(f"Redis cannot be read: {error}") from error

    def _totals(self, client: Any) -> Iterator[Total]:
        found = client.scan_iter(match=self._glob, count=BATCH)
        while batch := list(islice(found, BATCH)):
            for key, value in zip(batch, client.mget(batch), strict=True):
                text = key.decode(errors="replace")
                if value is None or not _INTEGER.fullmatch(value):
                    self.skipped += 1
                    self.examples = [*self.examples, text][:_MAX_EXAMPLES]
                else:
                    yield Total(self._subject(text), int(value), f"the key {text}")

    def _subject(self, key: str) -> str:
        """Return the subject of the counter that a key becomes.

        What a wildcard stands for becomes one token, even if it contains dots.
        """
        try:
            if self._template is None:
                return subject_of(tuple(key.split(":")))
            match = self._groups.fullmatch(key)
            parts = (key, *match.groups()) if match else (key,)
            return subject_of(tuple(each.format(*parts) for each in self._template.split(".")))
        except InvalidKey as error:
            raise CommandError(
                f"The key {key}: {error} Choose another --name. {ALREADY_SEEDED}"
            ) from error
        except (IndexError, KeyError, ValueError) as error:
            wildcards = self._glob.count("*")
            raise CommandError(
                f"--name {self._template}: it can contain {{0}} for the whole key, and {{1}} to "
                f"{{{wildcards}}} for each * of --match."
            ) from error
