"""How long values live, by Django's names and django-redis's."""

from __future__ import annotations

import math
from datetime import datetime
from time import time
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.utils import timezone

from ..client.entry import Entry, Write
from ..client.steps import Steps
from ..client.twins import twins
from .core import Core


class Timeouts(Core):
    """Reading and changing timeouts. A value that stays is stored again with its new timeout."""

    def _touch(
        self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Steps[bool]:
        """Give a key a new timeout in seconds, None for none; whether it has a value.

        FAIL_OPEN: False.
        """
        made = self.make_and_validate_key(key, version=version)
        seconds = self.get_backend_timeout(timeout)
        if seconds is not None and seconds <= 0:
            return (yield from self._bucket.delete(made))
        return (yield from self._restamp(made, seconds, only_expiring=False))

    touch, atouch = twins(_touch, lambda key, timeout=DEFAULT_TIMEOUT, version=None: False)

    def _expire(self, key: str, timeout: Any, version: int | None = None) -> Steps[bool]:
        """Let a key expire in so many seconds; whether it has a value. FAIL_OPEN: False."""
        return (yield from self._touch(key, timeout, version))

    expire, aexpire = twins(_expire, lambda key, timeout, version=None: False)

    def _pexpire(self, key: str, timeout: float, version: int | None = None) -> Steps[bool]:
        """Let a key expire in so many milliseconds; whether it has a value. FAIL_OPEN: False."""
        try:
            seconds = timeout / 1000
        except OverflowError:
            seconds = timeout // 1000  # an integer beyond floats, which is capped
        return (yield from self._touch(key, seconds, version))

    pexpire, apexpire = twins(_pexpire, lambda key, timeout, version=None: False)

    def _expire_at(
        self, key: str, when: datetime | float, version: int | None = None
    ) -> Steps[bool]:
        """Let a key expire at a time, a datetime or seconds since 1970; whether it has a value.

        The time is this machine's. A naive datetime is in Django's current time zone.
        FAIL_OPEN: False.
        """
        if isinstance(when, datetime):
            aware = timezone.make_aware(when) if timezone.is_naive(when) else when
            when = aware.timestamp()
        return (yield from self._touch(key, float(when) - time(), version))

    expire_at, aexpire_at = twins(_expire_at, lambda key, when, version=None: False)

    def _persist(self, key: str, version: int | None = None) -> Steps[bool]:
        """Take a key's timeout away; whether it had one, as in Redis. FAIL_OPEN: False."""
        made = self.make_and_validate_key(key, version=version)
        return (yield from self._restamp(made, None, only_expiring=True))

    persist, apersist = twins(_persist, lambda key, version=None: False)

    def _restamp(self, made: str, seconds: float | None, *, only_expiring: bool) -> Steps[bool]:
        def decide(entry: Entry | None) -> Steps[tuple[Write | None, bool]]:
            if entry is None or (only_expiring and entry.expires is None):
                return None, False
            return Write(entry.payload, entry.format, seconds), True
            yield  # a generator, like every decision

        return (yield from self._bucket.change(made, decide))

    def _pttl(self, key: str, version: int | None = None) -> Steps[int | None]:
        """Milliseconds until a key expires, rounded up; None for never, 0 for no value.

        FAIL_OPEN: None.
        """
        made = self.make_and_validate_key(key, version=version)
        entry = yield from self._bucket.get(made)
        if entry is None:
            return 0
        left = self._remaining(entry)
        return None if left is None else math.ceil(left * 1000)

    pttl, apttl = twins(_pttl, lambda key, version=None: None)

    def _ttl(self, key: str, version: int | None = None) -> Steps[int | None]:
        """Seconds until a key expires, rounded up; None for never, 0 for no value.

        FAIL_OPEN: None.
        """
        milliseconds = yield from self._pttl(key, version)
        return None if milliseconds is None else math.ceil(milliseconds / 1000)

    ttl, attl = twins(_ttl, lambda key, version=None: None)
