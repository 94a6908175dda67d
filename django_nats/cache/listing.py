"""Operations on all keys that match a pattern."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from ..client.kv import listing
from ..client.protocol.steps import Item, ItemSteps, Steps, next_item
from .core import Core
from .made_patterns import made_pattern
from .unstored import raise_failure

_LISTED = 4000
"""Keys that the server is asked for at a time."""
_DELETED = 1000
"""Keys that the server is asked for at a time to be deleted. As many at least are deleted at a
time."""


class Listing(Core):
    """Operations by pattern, with the wildcards of Redis: see ``made_patterns.py``."""

    def iter_keys(
        self, pattern: str = "*", itersize: int | None = None, version: int | None = None
    ) -> Iterator[str]:
        """Iterate over the keys that match, in no particular order.

        ``itersize`` is the number of keys that the server is asked for at a time, by default 4,000.
        Keys that are set or deleted during the iteration may or may not be included.
        FAIL_OPEN: the iteration ends early, or is empty.
        """
        return self._iterate(self._iter_keys(pattern, itersize, version))

    def aiter_keys(
        self, pattern: str = "*", itersize: int | None = None, version: int | None = None
    ) -> AsyncIterator[str]:
        """Async version of iter_keys()."""
        return self._aiterate(self._iter_keys(pattern, itersize, version))

    def _iter_keys(
        self, pattern: str = "*", itersize: int | None = None, version: int | None = None
    ) -> ItemSteps[list[str]]:
        """Yield lists of the keys that match."""
        made = made_pattern(self, pattern, version)
        found = listing.iter_keys(self._bucket, made.pattern, itersize or _LISTED)
        try:
            while (item := (yield from next_item(found))) is not None:
                yield Item(made.user_keys(item.value))
        finally:
            found.close()

    def keys(self, pattern: str = "*", version: int | None = None) -> list[str]:
        """Return a list of the keys that match.

        Where there are many keys, ``iter_keys`` takes less memory. FAIL_OPEN: an empty list.
        """
        return self._run(self._keys(pattern, version), away=[])

    async def akeys(self, pattern: str = "*", version: int | None = None) -> list[str]:
        """Async version of keys()."""
        return await self._arun(self._keys(pattern, version), away=[])

    def _keys(self, pattern: str = "*", version: int | None = None) -> Steps[list[str]]:
        steps = self._iter_keys(pattern, None, version)
        found: list[str] = []
        try:
            while (item := (yield from next_item(steps))) is not None:
                found += item.value
        finally:
            steps.close()
        return found

    def delete_pattern(
        self, pattern: str, version: int | None = None, itersize: int | None = None
    ) -> int:
        """Delete the keys that match. Return the number of deleted keys.

        ``itersize`` is the number of keys that the server is asked for at a time, by default 1,000.
        FAIL_OPEN: 0.
        """
        return self._run(self._delete_pattern(pattern, version, itersize), away=0)

    async def adelete_pattern(
        self, pattern: str, version: int | None = None, itersize: int | None = None
    ) -> int:
        """Async version of delete_pattern()."""
        return await self._arun(self._delete_pattern(pattern, version, itersize), away=0)

    def _delete_pattern(
        self, pattern: str, version: int | None = None, itersize: int | None = None
    ) -> Steps[int]:
        pattern = made_pattern(self, pattern, version).pattern
        found = listing.iter_keys(self._bucket, pattern, itersize or _DELETED)
        deleted = 0
        try:
            while True:
                revisions: dict[str, int] = {}
                while (
                    len(revisions) < _DELETED
                    and (item := (yield from next_item(found))) is not None
                ):
                    revisions |= item.value
                if not revisions:
                    return deleted
                # A key that was written after it was listed has another revision, and stays.
                failed = yield from self._bucket.delete_many(revisions, revisions)
                raise_failure(failed)
                deleted += len(revisions) - len(failed)
        finally:
            found.close()
