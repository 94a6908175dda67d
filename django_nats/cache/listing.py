"""What goes through many keys: listing, patterns, clear."""

from __future__ import annotations

import re

from django.core.exceptions import ImproperlyConfigured

from ..client import listing
from ..client.steps import Item, Steps, next_item
from ..client.twins import iterator_twins, twins
from .core import Core, raise_unavailable

_BATCH = 1000
_SENTINEL = "3f0c6a52d1"


class Listing(Core):
    """Operations by pattern: `*` any run, `?` any one, `[abc]` one of, as in Redis."""

    def _iter_keys(
        self, pattern: str = "*", itersize: int | None = None, version: int | None = None
    ) -> Steps[None]:
        """Iterate over the keys that match, ``itersize`` from the server at a time.

        In no order; keys set or deleted meanwhile may or may not be among them. FAIL_OPEN: none,
        or no more.
        """
        head, tail = self._affixes(version)
        made = f"{literally(head)}{pattern}{literally(tail)}"
        steps = listing.iter_keys(self._bucket, made, itersize or _BATCH)
        while (item := (yield from next_item(steps))) is not None:
            yield Item(item.value.key[len(head) : len(item.value.key) - len(tail)])

    iter_keys, aiter_keys = iterator_twins(_iter_keys)

    def _keys(self, pattern: str = "*", version: int | None = None) -> Steps[list[str]]:
        """The keys that match, as a list: iter_keys where there are many. FAIL_OPEN: none."""
        steps = self._iter_keys(pattern, None, version)
        found = []
        while (item := (yield from next_item(steps))) is not None:
            found.append(item.value)
        return found

    keys, akeys = twins(_keys, lambda pattern="*", version=None: [])

    def _delete_pattern(
        self, pattern: str, version: int | None = None, itersize: int | None = None
    ) -> Steps[int]:
        """Delete the keys that match; how many. FAIL_OPEN: 0."""
        head, tail = self._affixes(version)
        made = f"{literally(head)}{pattern}{literally(tail)}"
        steps = listing.iter_keys(self._bucket, made, itersize or _BATCH)
        deleted = 0
        while True:
            batch: dict[str, int] = {}
            while len(batch) < _BATCH and (item := (yield from next_item(steps))) is not None:
                batch[item.value.key] = item.value.revision
            if not batch:
                return deleted
            failed = yield from self._bucket.delete_many(batch, batch)
            raise_unavailable(failed)
            deleted += len(batch) - len(failed)

    delete_pattern, adelete_pattern = twins(
        _delete_pattern, lambda pattern, version=None, itersize=None: 0
    )

    def _clear(self) -> Steps[None]:
        """Empty the bucket: every version and prefix, of every alias that shares it.

        FAIL_OPEN: None.
        """
        yield from self._bucket.clear()

    clear, aclear = twins(_clear, lambda: None)

    def _affixes(self, version: int | None) -> tuple[str, str]:
        """What KEY_FUNCTION puts before and after a key."""
        made = self.make_key(_SENTINEL, version=version)
        head, found, tail = made.partition(_SENTINEL)
        if not found or _SENTINEL in tail:
            raise ImproperlyConfigured(
                f"Cache {self.alias!r}: keys cannot be listed, since its KEY_FUNCTION does not "
                "keep them readable"
            )
        return head, tail


def literally(text: str) -> str:
    return re.sub(r"([\\*?\[\]])", r"\\\1", text)
