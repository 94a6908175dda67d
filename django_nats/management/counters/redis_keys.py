"""Totals from Redis: the integers that INCR counts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from django.core.management.base import CommandError

from ...counters.collection import subject_of
from ...exceptions import InvalidKey
from .asking import BATCH
from .seeding import BEFORE, Total

_EXAMPLES = 3
_INTEGER = re.compile(rb"-?\d+")


class RedisKeys:
    """The keys of a Redis server that match a glob, and the counters they become."""

    def __init__(self, url: str, glob: str, template: str | None) -> None:
        if re.search(r"[?\[\]\\]", glob):
            raise CommandError(f"--match {glob}: the only wildcard that is understood here is *.")
        self._url = url
        self._glob = glob
        self._template = template
        wildcard = r"(.*)"
        self._groups = re.compile(wildcard.join(map(re.escape, glob.split("*"))), re.DOTALL)
        self.other = 0
        """Keys that hold something else than an integer."""
        self.examples: list[str] = []

    def totals(self) -> Iterator[Total]:
        """Raises CommandError without redis-py, when the server is away, for what is no name."""
        try:
            import redis
        except ImportError as error:
            raise CommandError("--redis needs redis-py: pip install redis") from error
        try:
            with redis.Redis.from_url(self._url) as client:
                yield from self._totals(client)
        except (redis.RedisError, ValueError) as error:
            # The URL may hold a password; redis-py's own words do not.
            raise CommandError(f"Redis cannot be read: {error}") from error

    def _totals(self, client: Any) -> Iterator[Total]:
        found = client.scan_iter(match=self._glob, count=BATCH)
        while batch := list(islice(found, BATCH)):
            for key, value in zip(batch, client.mget(batch), strict=True):
                text = key.decode(errors="replace")
                if value is None or not _INTEGER.fullmatch(value):
                    self.other += 1
                    self.examples = [*self.examples, text][:_EXAMPLES]
                else:
                    yield Total(self._subject(text), int(value), f"the key {text}")

    def _subject(self, key: str) -> str:
        """The subject of the counter that a key becomes: what a wildcard stands for is one token,
        dots and all."""
        try:
            if self._template is None:
                return subject_of(tuple(key.split(":")))
            match = self._groups.fullmatch(key)
            parts = (key, *match.groups()) if match else (key,)
            return subject_of(tuple(each.format(*parts) for each in self._template.split(".")))
        except InvalidKey as error:
            raise CommandError(f"The key {key}: {error} Give another --name. {BEFORE}") from error
        except (IndexError, KeyError, ValueError) as error:
            wildcards = self._glob.count("*")
            raise CommandError(
                f"--name {self._template}: it can hold {{0}}, the whole key, and {{1}} to "
                f"{{{wildcards}}} for the {wildcards} * of --match."
            ) from error
