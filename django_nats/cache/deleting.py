"""Deleting values, as in Django's cache API; ``getdel`` is Redis's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..client.protocol.steps import Steps
from .core import MISSING, Core


class Deleting(Core):
    """Operations that delete the values of given keys, or of all keys."""

    def delete(self, key: str, version: int | None = None) -> bool:
        """Delete a key. Return True if it had a value.

        Of several callers that delete a key at the same time, exactly one gets True.
        FAIL_OPEN: False.
        """
        return self._run(self._delete(key, version), away=False)

    async def adelete(self, key: str, version: int | None = None) -> bool:
        """Async version of delete()."""
        return await self._arun(self._delete(key, version), away=False)

    def _delete(self, key: str, version: int | None = None) -> Steps[bool]:
        made_key = self.make_and_validate_key(key, version=version)
        return (yield from self._bucket.delete(made_key))

    def getdel(self, key: str, default: Any = None, version: int | None = None) -> Any:
        """Delete a key and return the value that it had, or the default if it had none.

        Of several callers that delete a key at the same time, exactly one gets the value. If
        another caller writes the key in the meantime, the value of that write is deleted and
        returned. A value that cannot be read is deleted, too, and counts as missing.

        Raise OutcomeUnknown if the key may have been deleted, but no answer came: the value may be
        lost. FAIL_OPEN: the default.
        """
        return self._run(self._getdel(key, default, version), away=default)

    async def agetdel(self, key: str, default: Any = None, version: int | None = None) -> Any:
        """Async version of getdel()."""
        return await self._arun(self._getdel(key, default, version), away=default)

    def _getdel(self, key: str, default: Any = None, version: int | None = None) -> Steps[Any]:
        made_key = self.make_and_validate_key(key, version=version)
        value = self._value(made_key, (yield from self._bucket.pop(made_key)))
        return default if value is MISSING else value

    def delete_many(self, keys: Iterable[str], version: int | None = None) -> None:
        """Delete many keys at once.

        Raise the error of the first key that could not be deleted. FAIL_OPEN: None.
        """
        return self._run(self._delete_many(keys, version), away=None)

    async def adelete_many(self, keys: Iterable[str], version: int | None = None) -> None:
        """Async version of delete_many()."""
        return await self._arun(self._delete_many(keys, version), away=None)

    def _delete_many(self, keys: Iterable[str], version: int | None = None) -> Steps[None]:
        made_keys = list(self._made_keys(keys, version))
        for error in (yield from self._bucket.delete_many(made_keys)).values():
            raise error

    def clear(self) -> None:
        """Delete all keys of the bucket: every version and prefix, of every alias that shares it.

        FAIL_OPEN: None.
        """
        return self._run(self._clear(), away=None)

    async def aclear(self) -> None:
        """Async version of clear()."""
        return await self._arun(self._clear(), away=None)

    def _clear(self) -> Steps[None]:
        yield from self._bucket.clear()
