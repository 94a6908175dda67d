"""Compare-and-set: what a value was when it was read, and that nobody changed it since."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from ..client.entry import Entry, Write
from ..client.steps import Call, Steps
from ..client.twins import AWAY, twins
from .core import MISSING, Core


class Revisions(Core):
    """Operations on a key's revision; ``set(…, revision=)`` is with the values."""

    def _get_with_revision(
        self, key: str, default: Any = None, version: int | None = None
    ) -> Steps[tuple[Any, int]]:
        """The value and its revision, for ``set(…, revision=)``; (default, 0) when there is none.

        FAIL_OPEN: (default, 0).
        """
        made = self.make_and_validate_key(key, version=version)
        entry = yield from self._bucket.get(made)
        value = self._value(made, entry)
        revision = 0 if entry is None else entry.revision
        return (default if value is MISSING else value), revision

    get_with_revision, aget_with_revision = twins(
        _get_with_revision, lambda key, default=None, version=None: (default, 0)
    )

    def _update(
        self,
        key: str,
        function: Callable[[Any], Any],
        default: Any = None,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> Steps[Any]:
        """Replace a value by ``function(value)``, losing nobody's write; the new value.

        The function gets the default when there is no value. It is called again when another
        caller wrote meanwhile, and may be a coroutine function in ``aupdate``. FAIL_OPEN: what
        the function makes of the default, not stored.
        """
        made = self.make_and_validate_key(key, version=version)
        seconds = self.get_backend_timeout(timeout)
        computed = MISSING
        calling = False

        def decide(entry: Entry | None) -> Steps[tuple[Write | None, Any]]:
            nonlocal computed, calling
            value = self._value(made, entry)
            calling = True
            computed = yield Call(function, (default if value is MISSING else value,))
            calling = False
            return self._write(made, computed, seconds), computed

        try:
            return (yield from self._bucket.change(made, decide))
        except AWAY:
            # The function may use NATS itself: its own failure is not this cache's.
            if calling or not self.fail_open:
                raise
        return computed if computed is not MISSING else (yield Call(function, (default,)))

    update, aupdate = twins(_update)
