"""Reading values, as in Django's cache API.

https://docs.djangoproject.com/en/stable/topics/cache/#basic-usage
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..client.operations import UNKNOWN
from ..client.protocol.steps import Steps
from .core import MISSING, Core


class Reading(Core):
    """Operations that read values, from the near cache if it has them."""

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        """Return the value of a key, or the default if it has none.

        FAIL_OPEN: the default.
        """
        if (found := self._get_near(key, default, version)) is not UNKNOWN:
            return found
        return self._run(self._get(key, default, version), away=default)

    async def aget(self, key: str, default: Any = None, version: int | None = None) -> Any:
        """Async version of get()."""
        if (found := self._get_near(key, default, version)) is not UNKNOWN:
            return found
        return await self._arun(self._get(key, default, version), away=default)

    def _get(self, key: str, default: Any = None, version: int | None = None) -> Steps[Any]:
        made_key = self.make_and_validate_key(key, version=version)
        found = yield from self._bucket.get_payload(made_key)
        if found is None:
            self._bucket.misses += 1
            return default
        payload, format, _ = found
        value = self._decoded(made_key, payload, format)
        return default if value is MISSING else value

    def _get_near(self, key: str, default: Any = None, version: int | None = None) -> Any:
        """Return the value from the near cache, or UNKNOWN if the server must be asked."""
        if self._near is None:
            return UNKNOWN
        if not self._checked_for_tests:
            self._check_for_tests()
        near = self._near
        value = self._near_value(near, self.make_and_validate_key(key, version))
        return default if value is MISSING else value

    def get_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, Any]:
        """Return a dictionary of the keys that have a value, and their values.

        FAIL_OPEN: an empty dictionary.
        """
        return self._run(self._get_many(keys, version), away={})

    async def aget_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, Any]:
        """Async version of get_many()."""
        return await self._arun(self._get_many(keys, version), away={})

    def _get_many(self, keys: Iterable[str], version: int | None = None) -> Steps[dict[str, Any]]:
        wanted = self._made_keys(keys, version)
        values = {}
        near = self._near
        if near is not None:
            for made_key, key in list(wanted.items()):
                value = self._near_value(near, made_key)
                if value is not UNKNOWN:
                    del wanted[made_key]
                    if value is not MISSING:
                        values[key] = value
            if not wanted:
                return values
        payloads = yield from self._bucket.get_payloads(list(wanted))
        for made_key, key in wanted.items():  # in the order asked for, which is not the server's
            found = payloads.get(made_key)
            if found is not None:
                value = self._decoded(made_key, *found)
                if value is not MISSING:
                    values[key] = value
        self._bucket.misses += len(wanted) - len(payloads)
        return values

    def has_key(self, key: str, version: int | None = None) -> bool:
        """Return True if the key has a value.

        FAIL_OPEN: False.
        """
        if (found := self._get_near(key, MISSING, version)) is not UNKNOWN:
            return found is not MISSING
        return self._run(self._has_key(key, version), away=False)

    async def ahas_key(self, key: str, version: int | None = None) -> bool:
        """Async version of has_key()."""
        if (found := self._get_near(key, MISSING, version)) is not UNKNOWN:
            return found is not MISSING
        return await self._arun(self._has_key(key, version), away=False)

    def _has_key(self, key: str, version: int | None = None) -> Steps[bool]:
        return (yield from self._get(key, MISSING, version)) is not MISSING
