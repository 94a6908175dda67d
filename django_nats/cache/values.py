"""Django's cache API: https://docs.djangoproject.com/en/stable/topics/cache/#basic-usage"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from ..client.entry import Entry, Write
from ..client.exchange import begun
from ..client.steps import Call, Steps
from ..client.twins import UNKNOWN, twins
from .core import MISSING, Core, logger, raise_unavailable

_AWAY: Any = object()


class Values(Core):
    """Single values and many at once. Each operation is one method of steps and its two twins."""

    # Reading ---------------------------------------------------------------------------------

    def _get(self, key: str, default: Any = None, version: int | None = None) -> Steps[Any]:
        """The value of a key, or the default. FAIL_OPEN: the default."""
        made = self.make_and_validate_key(key, version=version)
        value = self._value(made, (yield from self._bucket.get(made)))
        return default if value is MISSING else value

    def _copied(self, key: str, default: Any = None, version: int | None = None) -> Any:
        near = self._near
        if near is None:
            return UNKNOWN
        value = self._peek(near, self.make_and_validate_key(key, version))
        return default if value is MISSING else value

    get, aget = twins(_get, lambda key, default=None, version=None: default, _copied)

    def _get_many(self, keys: Iterable[str], version: int | None = None) -> Steps[dict[str, Any]]:
        """The values of those keys that have one. FAIL_OPEN: none."""
        made = {self.make_and_validate_key(key, version=version): key for key in keys}
        values = {}
        near = self._near
        if near is not None:
            for made_key, key in list(made.items()):
                value = self._peek(near, made_key)
                if value is not UNKNOWN:
                    del made[made_key]
                    if value is not MISSING:
                        values[key] = value
            if not made:
                return values
        entries = yield from self._bucket.get_many(list(made))
        for made_key, entry in entries.items():
            value = self._value(made_key, entry)
            if value is not MISSING:
                values[made[made_key]] = value
        self._bucket.misses += len(made) - len(entries)
        return values

    get_many, aget_many = twins(_get_many, lambda keys, version=None: {})

    def _has_key(self, key: str, version: int | None = None) -> Steps[bool]:
        """Whether the key has a value. FAIL_OPEN: False."""
        found = self._copied(key, MISSING, version)
        if found is UNKNOWN:
            found = yield from self._get(key, MISSING, version)
        return found is not MISSING

    has_key, ahas_key = twins(_has_key, lambda key, version=None: False)

    # Writing ---------------------------------------------------------------------------------

    def _set(
        self,
        key: str,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        nx: bool = False,
        revision: int | None = None,
    ) -> Steps[bool | None]:
        """Store a value for ``timeout`` seconds (None: for ever; 0 or less: not at all).

        With ``nx``, only if the key has none; with ``revision``, only if the key still has that
        revision (0: none). Both return whether it was stored. FAIL_OPEN: None, or False.
        """
        if nx and revision not in (None, 0):
            raise ValueError("nx and revision are two conditions: give one of them")
        if revision is not None and (type(revision) is not int or revision < 0):
            raise TypeError(f"revision must be one of get_with_revision, not {revision!r}")
        made = self.make_and_validate_key(key, version=version)
        seconds = self.get_backend_timeout(timeout)
        if nx or revision is not None:
            return (yield from self._set_if(made, value, seconds, revision or 0))
        if seconds is not None and seconds <= 0:
            yield from self._bucket.discard(made)
        else:
            yield from self._bucket.put(made, self._write(made, value, seconds))
        return None

    def _away_set(*args: Any, nx: bool = False, revision: int | None = None, **_: Any) -> Any:
        return False if nx or revision is not None else None

    set, aset = twins(_set, _away_set)  # type: ignore[assignment]  # Django's return None only

    def _set_if(self, made: str, value: Any, seconds: float | None, revision: int) -> Steps[bool]:
        if seconds is not None and seconds <= 0:
            entry = yield from self._bucket.get(made)
            if (entry.revision if entry is not None else 0) != revision:
                return False
            if entry is None:
                return True
            failed = yield from self._bucket.delete_many([made], {made: revision})
            raise_unavailable(failed)
            return not failed

        def readable(entry: Entry) -> bool:
            return self._value(made, entry) is not MISSING

        write = self._write(made, value, seconds)
        # Over a value that cannot be read, too: it would keep the key from ever being filled.
        storing = self._bucket.compare_and_set(made, write, revision, readable)
        return (yield from storing) is not None

    def _add(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Steps[bool]:
        """Store a value if the key has none; whether it was stored. FAIL_OPEN: False."""
        made = self.make_and_validate_key(key, version=version)
        return (yield from self._set_if(made, value, self.get_backend_timeout(timeout), 0))

    add, aadd = twins(_add, lambda key, value, timeout=DEFAULT_TIMEOUT, version=None: False)

    def _set_many(
        self, data: Mapping[str, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Steps[list[str]]:
        """Store many values at once; the keys that could not be stored. FAIL_OPEN: all of them."""
        seconds = self.get_backend_timeout(timeout)
        made = {self.make_and_validate_key(key, version=version): key for key in data}
        if seconds is not None and seconds <= 0:
            failed = yield from self._bucket.delete_many(made)
        else:
            writes = {each: self._write(each, data[key], seconds) for each, key in made.items()}
            failed = yield from self._bucket.put_many(writes)
        raise_unavailable(failed)
        for made_key, error in failed.items():
            logger.warning("Cache %r: %r was not stored: %s", self.alias, made[made_key], error)
        return [made[made_key] for made_key in failed]

    set_many, aset_many = twins(
        _set_many, lambda data, timeout=DEFAULT_TIMEOUT, version=None: list(data)
    )

    def _get_or_set(
        self, key: str, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Steps[Any]:
        """The value of a key; when there is none, the default is stored, and returned.

        The default may be a function, and in ``aget_or_set`` a coroutine function. When another
        caller stored a value meanwhile, that one is returned. FAIL_OPEN: the default, not stored.
        """
        made = self.make_and_validate_key(key, version=version)
        near = self._near
        value = UNKNOWN if near is None else self._peek(near, made)
        entry: Any = None
        if value is UNKNOWN:
            entry = yield from self._or(self._bucket.get(made), _AWAY)
            value = MISSING if entry is _AWAY else self._value(made, entry)
        if value is not MISSING:
            return value
        if callable(default):
            default = yield Call(default)
        if entry is _AWAY:
            return default
        storing = self._set_if(made, default, self.get_backend_timeout(timeout), 0)
        if (yield from self._or(storing, True)):
            return default
        return (yield from self._or(self._get(key, default, version), default))

    get_or_set, aget_or_set = twins(_get_or_set)

    def _incr(self, key: str, delta: int = 1, version: int | None = None) -> Steps[int]:
        """Add to an integer of any size, keeping its timeout; the new value.

        Loses no update; many callers at once on one key wait for each other. Raises ValueError
        when the key has no value, TypeError when that is no integer. FAIL_OPEN: None.
        """
        made = self.make_and_validate_key(key, version=version)
        if not isinstance(delta, int):
            raise TypeError(f"delta must be an integer, not {type(delta).__name__}")

        def decide(entry: Entry | None) -> Steps[tuple[Write | None, int]]:
            value = self._value(made, entry)
            if entry is None or value is MISSING:
                raise ValueError(f"Key {key!r} not found")
            if type(value) is not int:
                raise TypeError(f"The value of {key!r} is a {type(value).__name__}, no integer")
            total = value + delta
            return self._rewrite(made, total, entry), total
            yield  # a generator, like every decision

        return (yield from self._bucket.change(made, decide))

    incr, aincr = twins(_incr, lambda key, delta=1, version=None: None)

    def _decr(self, key: str, delta: int = 1, version: int | None = None) -> Steps[int]:
        """Subtract from an integer: see incr. FAIL_OPEN: None."""
        return (yield from self._incr(key, -delta, version))

    decr, adecr = twins(_decr, lambda key, delta=1, version=None: None)

    def _incr_version(self, key: str, delta: int = 1, version: int | None = None) -> Steps[int]:
        """Move a value, with its timeout, to another version; the new version.

        Raises ValueError when the key has no value. FAIL_OPEN: None.
        """
        version = self.version if version is None else version
        made = self.make_and_validate_key(key, version=version)
        entry = yield from self._bucket.get(made)
        value = self._value(made, entry)
        if entry is None or value is MISSING:
            raise ValueError(f"Key {key!r} not found")
        moved = self.make_and_validate_key(key, version=version + delta)
        yield from self._bucket.put(moved, self._rewrite(moved, value, entry))
        yield from begun(self._bucket.delete(made))
        return version + delta

    incr_version, aincr_version = twins(_incr_version, lambda key, delta=1, version=None: None)

    def _decr_version(self, key: str, delta: int = 1, version: int | None = None) -> Steps[int]:
        """Move a value to an earlier version: see incr_version. FAIL_OPEN: None."""
        return (yield from self._incr_version(key, -delta, version))

    decr_version, adecr_version = twins(_decr_version, lambda key, delta=1, version=None: None)

    # Deleting --------------------------------------------------------------------------------

    def _delete(self, key: str, version: int | None = None) -> Steps[bool]:
        """Remove a key; whether it had a value, which of racing deletes only one is told.

        FAIL_OPEN: False.
        """
        made = self.make_and_validate_key(key, version=version)
        return (yield from self._bucket.delete(made))

    delete, adelete = twins(_delete, lambda key, version=None: False)

    def _delete_many(self, keys: Iterable[str], version: int | None = None) -> Steps[None]:
        """Remove many keys at once. FAIL_OPEN: None."""
        made = [self.make_and_validate_key(key, version=version) for key in keys]
        for error in (yield from self._bucket.delete_many(made)).values():
            raise error

    delete_many, adelete_many = twins(_delete_many, lambda keys, version=None: None)
