"""Storing values, as in Django's cache API, with conditions.

https://docs.djangoproject.com/en/stable/topics/cache/#basic-usage
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from ..client.kv.entry import Entry, Write
from ..client.operations import UNKNOWN
from ..client.protocol.steps import Call, Steps
from .core import MISSING, Core, logger
from .unstored import discard_unstored, raise_failure, raise_unavailable

_NO_ANSWER: Any = object()


class Writing(Core):
    """Operations that store values."""

    def set(  # type: ignore[override]  # Django's returns None only
        self,
        key: str,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        nx: bool = False,
        xx: bool = False,
        revision: int | None = None,
        **unknown: NoReturn,
    ) -> bool | None:
        """Store a value for ``timeout`` seconds.

        With None as the timeout, the value never expires. With 0 or less, nothing is stored, and
        the old value is deleted.

        At most one of these conditions can be given: with ``nx``, store the value only if the key
        has none; with ``xx``, only if it has one; with ``revision``, only if the key still has that
        revision (0: no value). Then return True if the value was stored and False if not.

        If an unconditional write is refused, for example because the value is too large, the old
        value is deleted. If that fails as well, the error says so. A conditional write that is
        refused leaves the key as it was.

        Return None without a condition. Raise ValueTooLarge, BucketFull, PermissionDenied or
        another ServerError if the write is refused, and ValueError if several conditions are given.
        FAIL_OPEN: None, or False with a condition.
        """
        return self._run(
            self._set(key, value, timeout, version, nx=nx, xx=xx, revision=revision, **unknown),
            away=False if nx or xx or revision is not None else None,
        )

    async def aset(  # type: ignore[override]
        self,
        key: str,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        nx: bool = False,
        xx: bool = False,
        revision: int | None = None,
        **unknown: NoReturn,
    ) -> bool | None:
        """Async version of set()."""
        return await self._arun(
            self._set(key, value, timeout, version, nx=nx, xx=xx, revision=revision, **unknown),
            away=False if nx or xx or revision is not None else None,
        )

    def _set(
        self,
        key: str,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        nx: bool = False,
        xx: bool = False,
        revision: int | None = None,
        **unknown: NoReturn,
    ) -> Steps[bool | None]:
        for name in unknown:
            raise TypeError(
                f"set() has no argument {name!r}. The timeout, in seconds, is called 'timeout'; "
                "the conditions are 'nx', 'xx' and 'revision'"
            )
        if (nx and revision not in (None, 0)) or (xx and (nx or revision is not None)):
            raise ValueError("nx, xx and revision are different conditions: give one of them")
        if revision is not None and (type(revision) is not int or revision < 0):
            raise TypeError(
                "revision must be an integer returned by get_with_revision(), "
                f"or 0, not {revision!r}"
            )
        made_key = self.make_and_validate_key(key, version=version)
        seconds = self.get_backend_timeout(timeout)
        if nx or revision is not None:
            write = self._write(made_key, value, seconds)
            return (yield from self._set_at_revision(made_key, write, revision or 0))
        if xx:
            write = self._write(made_key, value, seconds)
            return (yield from self._set_existing(made_key, write))
        if seconds is not None and seconds <= 0:
            yield from self._bucket.discard(made_key)
            return None
        try:
            write = self._write(made_key, value, seconds)
        except Exception as error:
            yield from discard_unstored(self._bucket, self.alias, [made_key], error)
            raise
        yield from self._bucket.put(made_key, write)
        return None

    def _set_at_revision(self, made_key: str, write: Write, revision: int) -> Steps[bool]:
        """Store a value if the key has this revision, or for 0 if it has no readable value."""
        if write.seconds is not None and write.seconds <= 0:
            entry = yield from self._bucket.get(made_key)
            if (entry.revision if entry is not None else 0) != revision:
                return False
            if entry is None:
                return True
            failed = yield from self._bucket.delete_many([made_key], {made_key: revision})
            raise_failure(failed)
            return not failed

        def is_readable(entry: Entry) -> bool:
            return self._value(made_key, entry) is not MISSING

        # An unreadable value is replaced: otherwise the key could never be filled again.
        storing = self._bucket.compare_and_set(made_key, write, revision, is_readable)
        return (yield from storing) is not None

    def _set_existing(self, made_key: str, write: Write) -> Steps[bool]:
        """Store a value if the key has one."""
        if write.seconds is not None and write.seconds <= 0:
            return (yield from self._bucket.delete(made_key))

        def decide(entry: Entry | None) -> Steps[tuple[Write | None, bool]]:
            if self._value(made_key, entry) is MISSING:
                return None, False
            return write, True
            yield  # makes this a generator, as change() expects

        return (yield from self._bucket.change(made_key, decide))

    def add(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """Store a value if the key has none. Return True if it was stored.

        FAIL_OPEN: False. For a key of Django's cache sessions, the error is raised all the same.
        """
        return self._run(
            self._add(key, value, timeout, version), make_away=lambda: _add_result_away(key)
        )

    async def aadd(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """Async version of add()."""
        return await self._arun(
            self._add(key, value, timeout, version), make_away=lambda: _add_result_away(key)
        )

    def _add(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Steps[bool]:
        made_key = self.make_and_validate_key(key, version=version)
        write = self._write(made_key, value, self.get_backend_timeout(timeout))
        return (yield from self._set_at_revision(made_key, write, 0))

    def set_many(
        self, data: Mapping[str, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[str]:
        """Store many values at once. Return the keys that could not be stored.

        The reasons are logged. The old values of keys that were refused are deleted, as by ``set``.
        FAIL_OPEN: all keys.
        """
        return self._run(self._set_many(data, timeout, version), make_away=lambda: list(data))

    async def aset_many(
        self, data: Mapping[str, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[str]:
        """Async version of set_many()."""
        return await self._arun(
            self._set_many(data, timeout, version), make_away=lambda: list(data)
        )

    def _set_many(
        self, data: Mapping[str, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Steps[list[str]]:
        seconds = self.get_backend_timeout(timeout)
        keys = self._made_keys(data, version)
        if seconds is not None and seconds <= 0:
            failed = yield from self._bucket.delete_many(keys)
        else:
            try:
                writes = self._writes(keys, data, seconds)
            except Exception as error:
                yield from discard_unstored(self._bucket, self.alias, keys, error)
                raise
            failed = yield from self._bucket.put_many(writes)
        raise_unavailable(failed)
        for made_key, reason in failed.items():
            logger.warning("Cache %r: %r was not stored: %s", self.alias, keys[made_key], reason)
        return [keys[made_key] for made_key in failed]

    def get_or_set(
        self, key: str, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        """Return the value of a key. If it has none, store the default and return it.

        The default is returned as a reader gets it: it is a copy, of the types that the serializer
        restores, such as a list if a tuple is stored as JSON. It may be a function, which is called
        only if the key has no value; ``aget_or_set`` accepts a coroutine function as well. If
        another caller stores a value in the meantime, that value is returned.

        FAIL_OPEN: the default, as a reader would get it. It is not stored.
        """
        return self._run(self._get_or_set(key, default, timeout, version))

    async def aget_or_set(
        self, key: str, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        """Async version of get_or_set()."""
        return await self._arun(self._get_or_set(key, default, timeout, version))

    def _get_or_set(
        self, key: str, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Steps[Any]:
        made_key = self.make_and_validate_key(key, version=version)
        near = self._near
        value = UNKNOWN if near is None else self._near_value(near, made_key)
        is_away = False
        if value is UNKNOWN:
            entry = yield from self._result_or(self._bucket.get(made_key), _NO_ANSWER)
            is_away = entry is _NO_ANSWER
            value = MISSING if is_away else self._value(made_key, entry)
        if value is not MISSING:
            return value
        if callable(default):
            default = yield Call(default)
        write = self._write(made_key, default, self.get_backend_timeout(timeout))
        if is_away or (yield from self._result_or(self._set_at_revision(made_key, write, 0), True)):
            return self._as_read(made_key, default, write)
        # Another caller has stored a value in the meantime.
        entry = yield from self._result_or(self._bucket.get(made_key), _NO_ANSWER)
        value = MISSING if entry is _NO_ANSWER else self._value(made_key, entry)
        return self._as_read(made_key, default, write) if value is MISSING else value


def _add_result_away(key: object) -> bool:
    """Return False; for a key of Django's cache sessions, raise the error that is being handled."""
    from django.contrib.sessions.backends.cache import KEY_PREFIX

    # Django takes False to mean that the session key is in use. It would try 10,000 other keys,
    # which takes seconds, before it raises an error of its own.
    text = str(key)  # Django accepts keys of other types, too
    if text.startswith(KEY_PREFIX) and text[len(KEY_PREFIX) :].isalnum():
        raise
    return False
