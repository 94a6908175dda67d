"""Timeouts of stored values. The methods that Django lacks have the names of django-redis's."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.utils import timezone

from ..client.kv.entry import Entry, Write
from ..client.protocol.steps import Steps
from .core import Core


class Expiry(Core):
    """Operations that read and change timeouts.

    The server cannot change the timeout of a stored value, so changing one stores the value again.
    """

    def touch(self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Set a new timeout for a key, in seconds or None. Return True if the key has a value.

        With a timeout of 0 or less, delete the key. FAIL_OPEN: False.
        """
        return self._run(self._touch(key, timeout, version), away=False)

    async def atouch(
        self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """Async version of touch()."""
        return await self._arun(self._touch(key, timeout, version), away=False)

    def _touch(
        self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Steps[bool]:
        made_key = self.make_and_validate_key(key, version=version)
        seconds = self.get_backend_timeout(timeout)
        if seconds is not None and seconds <= 0:
            return (yield from self._bucket.delete(made_key))
        return (yield from self._store_with_timeout(made_key, seconds, only_expiring=False))

    def expire(self, key: str, timeout: Any, version: int | None = None) -> bool:
        """Set a new timeout for a key, as touch() does. Return True if the key has a value.

        The timeout is in seconds, a timedelta or None. FAIL_OPEN: False.
        """
        return self._run(self._expire(key, timeout, version), away=False)

    async def aexpire(self, key: str, timeout: Any, version: int | None = None) -> bool:
        """Async version of expire()."""
        return await self._arun(self._expire(key, timeout, version), away=False)

    def _expire(self, key: str, timeout: Any, version: int | None = None) -> Steps[bool]:
        if isinstance(timeout, timedelta):
            timeout = timeout.total_seconds()
        return (yield from self._touch(key, timeout, version))

    def pexpire(
        self, key: str, timeout: float | timedelta | Any | None, version: int | None = None
    ) -> bool:
        """Set a new timeout for a key, as touch() does. Return True if the key has a value.

        The timeout is in milliseconds, a timedelta, None or DEFAULT_TIMEOUT. FAIL_OPEN: False.
        """
        return self._run(self._pexpire(key, timeout, version), away=False)

    async def apexpire(
        self, key: str, timeout: float | timedelta | Any | None, version: int | None = None
    ) -> bool:
        """Async version of pexpire()."""
        return await self._arun(self._pexpire(key, timeout, version), away=False)

    def _pexpire(
        self, key: str, timeout: float | timedelta | Any | None, version: int | None = None
    ) -> Steps[bool]:
        if not (timeout is None or timeout is DEFAULT_TIMEOUT or isinstance(timeout, timedelta)):
            timeout = _to_seconds(timeout)
        return (yield from self._expire(key, timeout, version))

    def expire_at(self, key: str, when: datetime | float, version: int | None = None) -> bool:
        """Set the time at which a key expires. Return True if the key has a value.

        The time is a datetime, or a number of seconds since 1970. It is compared with
        ``timezone.now()`` on this machine, which a test may have frozen. A naive datetime is in
        Django's current time zone, or with USE_TZ=False in the same time zone as
        ``timezone.now()``. If the time has passed, the key is deleted. FAIL_OPEN: False.
        """
        return self._run(self._expire_at(key, when, version), away=False)

    async def aexpire_at(
        self, key: str, when: datetime | float, version: int | None = None
    ) -> bool:
        """Async version of expire_at()."""
        return await self._arun(self._expire_at(key, when, version), away=False)

    def _expire_at(
        self, key: str, when: datetime | float, version: int | None = None
    ) -> Steps[bool]:
        if isinstance(when, (str, bytes)):
            raise TypeError(f"when must be a datetime or a number of seconds, not {when!r}")
        now = timezone.now()
        if isinstance(when, datetime):
            if timezone.is_naive(when):
                when = timezone.make_aware(when)
                if timezone.is_naive(now):
                    # Under freezegun local time is UTC or any other zone, whatever TIME_ZONE says.
                    now = timezone.make_aware(now)
            when = when.timestamp()
        try:
            seconds = float(when) - now.timestamp()
        except OverflowError:
            seconds = math.inf if when > 0 else -math.inf
        return (yield from self._touch(key, seconds, version))

    def pexpire_at(self, key: str, when: datetime | float, version: int | None = None) -> bool:
        """Set the time at which a key expires, as expire_at() does.

        The time is a datetime, or a number of milliseconds since 1970. Return True if the key has a
        value. FAIL_OPEN: False.
        """
        return self._run(self._pexpire_at(key, when, version), away=False)

    async def apexpire_at(
        self, key: str, when: datetime | float, version: int | None = None
    ) -> bool:
        """Async version of pexpire_at()."""
        return await self._arun(self._pexpire_at(key, when, version), away=False)

    def _pexpire_at(
        self, key: str, when: datetime | float, version: int | None = None
    ) -> Steps[bool]:
        if not isinstance(when, datetime):
            when = _to_seconds(when)
        return (yield from self._expire_at(key, when, version))

    def persist(self, key: str, version: int | None = None) -> bool:
        """Remove the timeout of a key. Return True if it had one, as in Redis.

        FAIL_OPEN: False.
        """
        return self._run(self._persist(key, version), away=False)

    async def apersist(self, key: str, version: int | None = None) -> bool:
        """Async version of persist()."""
        return await self._arun(self._persist(key, version), away=False)

    def _persist(self, key: str, version: int | None = None) -> Steps[bool]:
        made_key = self.make_and_validate_key(key, version=version)
        return (yield from self._store_with_timeout(made_key, None, only_expiring=True))

    def _store_with_timeout(
        self, made_key: str, seconds: float | None, *, only_expiring: bool
    ) -> Steps[bool]:
        def decide(entry: Entry | None) -> Steps[tuple[Write | None, bool]]:
            if entry is None or (only_expiring and entry.expires is None):
                return None, False
            return Write(entry.payload, entry.format, seconds), True
            yield  # makes this a generator, as change() expects

        return (yield from self._bucket.change(made_key, decide))

    def pttl(self, key: str, version: int | None = None) -> int | None:
        """Return the milliseconds until a key expires, rounded up.

        Return None if it never expires, and 0 if it has no value. FAIL_OPEN: None.
        """
        return self._run(self._pttl(key, version), away=None)

    async def apttl(self, key: str, version: int | None = None) -> int | None:
        """Async version of pttl()."""
        return await self._arun(self._pttl(key, version), away=None)

    def _pttl(self, key: str, version: int | None = None) -> Steps[int | None]:
        made_key = self.make_and_validate_key(key, version=version)
        entry = yield from self._bucket.get(made_key)
        if entry is None:
            return 0
        left = self._seconds_left(entry)
        return None if left is None else math.ceil(left * 1000)

    def ttl(self, key: str, version: int | None = None) -> int | None:
        """Return the seconds until a key expires, rounded up.

        Return None if it never expires, and 0 if it has no value. FAIL_OPEN: None.
        """
        return self._run(self._ttl(key, version), away=None)

    async def attl(self, key: str, version: int | None = None) -> int | None:
        """Async version of ttl()."""
        return await self._arun(self._ttl(key, version), away=None)

    def _ttl(self, key: str, version: int | None = None) -> Steps[int | None]:
        milliseconds = yield from self._pttl(key, version)
        return None if milliseconds is None else math.ceil(milliseconds / 1000)


def _to_seconds(milliseconds: float) -> float:
    try:
        return milliseconds / 1000
    except OverflowError:
        return milliseconds // 1000  # an integer too large for a float, which is capped later
