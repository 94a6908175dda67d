"""Compare-and-set: writing a value only if no other caller has changed it since it was read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from ..client.kv.entry import Entry, Write
from ..client.operations import AWAY, note_hidden
from ..client.protocol.steps import Call, Steps
from .core import MISSING, Core


class Revisions(Core):
    """Operations on the revision of a key. ``set(…, revision=…)`` is in ``writing.py``."""

    def get_with_revision(
        self, key: str, default: Any = None, version: int | None = None
    ) -> tuple[Any, int]:
        """Return the value of a key and its revision, which ``set(…, revision=…)`` accepts.

        Return (default, 0) if the key has no value. FAIL_OPEN: (default, 0).
        """
        return self._run(self._get_with_revision(key, default, version), away=(default, 0))

    async def aget_with_revision(
        self, key: str, default: Any = None, version: int | None = None
    ) -> tuple[Any, int]:
        """Async version of get_with_revision()."""
        return await self._arun(self._get_with_revision(key, default, version), away=(default, 0))

    def _get_with_revision(
        self, key: str, default: Any = None, version: int | None = None
    ) -> Steps[tuple[Any, int]]:
        made_key = self.make_and_validate_key(key, version=version)
        entry = yield from self._bucket.get(made_key)
        value = self._value(made_key, entry)
        revision = 0 if entry is None else entry.revision
        return (default if value is MISSING else value), revision

    def update(
        self,
        key: str,
        function: Callable[[Any], Any],
        default: Any = None,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> Any:
        """Replace the value of a key by ``function(value)``. Return the new value.

        No update is lost: if another caller writes the key in the meantime, the function is called
        again with the value of that write. If the key has no value, the function gets the default.
        ``aupdate`` accepts a coroutine function as well. The new value is returned as a reader gets
        it: it is a copy, of the types that the serializer restores.

        FAIL_OPEN: the result of the function, as a reader would get it. It is not stored. The
        function gets the default if the value could not be read.
        """
        return self._run(self._update(key, function, default, timeout, version))

    async def aupdate(
        self,
        key: str,
        function: Callable[[Any], Any],
        default: Any = None,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> Any:
        """Async version of update()."""
        return await self._arun(self._update(key, function, default, timeout, version))

    def _update(
        self,
        key: str,
        function: Callable[[Any], Any],
        default: Any = None,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> Steps[Any]:
        made_key = self.make_and_validate_key(key, version=version)
        seconds = self.get_backend_timeout(timeout)
        computed = MISSING
        is_calling = False

        def decide(entry: Entry | None) -> Steps[tuple[Write | None, Write]]:
            nonlocal computed, is_calling
            value = self._value(made_key, entry)
            is_calling = True
            computed = yield Call(function, (default if value is MISSING else value,))
            is_calling = False
            write = self._write(made_key, computed, seconds)
            return write, write

        try:
            write = yield from self._bucket.change(made_key, decide)
        except AWAY as error:
            # The function may use NATS itself. An error of its own is not one of this cache.
            if is_calling or not self.fail_open:
                raise
            note_hidden(error)
            if computed is MISSING:
                computed = yield Call(function, (default,))
            write = self._write(made_key, computed, seconds)
        return self._as_read(made_key, computed, write)
