"""Moving values between versions, as in Django's cache API.

https://docs.djangoproject.com/en/stable/topics/cache/#cache-versioning
"""

from __future__ import annotations

from ..client.protocol.steps import Steps
from ..client.streams.requests import begun
from .core import MISSING, Core
from .unstored import discard_unstored


class Versions(Core):
    """Operations that move a value from one version to another."""

    def incr_version(  # type: ignore[override]  # Django's never returns None
        self, key: str, delta: int = 1, version: int | None = None
    ) -> int | None:
        """Move a value, with its timeout, delta versions up. Return the new version.

        Raise ValueError if the key has no value. FAIL_OPEN: None.
        """
        return self._run(self._incr_version(key, delta, version), away=None)

    async def aincr_version(  # type: ignore[override]
        self, key: str, delta: int = 1, version: int | None = None
    ) -> int | None:
        """Async version of incr_version()."""
        return await self._arun(self._incr_version(key, delta, version), away=None)

    def _incr_version(self, key: str, delta: int = 1, version: int | None = None) -> Steps[int]:
        version = self.version if version is None else version
        old_key = self.make_and_validate_key(key, version=version)
        entry = yield from self._bucket.get(old_key)
        value = self._value(old_key, entry)
        if entry is None or value is MISSING:
            raise ValueError(f"Key {key!r} not found")
        new_key = self.make_and_validate_key(key, version=version + delta)
        try:
            write = self._write_keeping_expiry(new_key, value, entry)
        except Exception as error:
            yield from discard_unstored(self._bucket, self.alias, [new_key], error)
            raise
        yield from self._bucket.put(new_key, write)
        yield from begun(self._bucket.delete(old_key))
        return version + delta

    def decr_version(  # type: ignore[override]
        self, key: str, delta: int = 1, version: int | None = None
    ) -> int | None:
        """Move a value, with its timeout, delta versions down. Return the new version.

        Raise ValueError if the key has no value. FAIL_OPEN: None.
        """
        return self._run(self._decr_version(key, delta, version), away=None)

    async def adecr_version(  # type: ignore[override]
        self, key: str, delta: int = 1, version: int | None = None
    ) -> int | None:
        """Async version of decr_version()."""
        return await self._arun(self._decr_version(key, delta, version), away=None)

    def _decr_version(self, key: str, delta: int = 1, version: int | None = None) -> Steps[int]:
        return (yield from self._incr_version(key, -delta, version))
