"""The base of every operation of the cache: settings, keys, values and timeouts."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache, default_key_func

from ..client import process
from ..client.kv.bucket import Bucket
from ..client.kv.entry import Entry, Write, new_write
from ..client.operations import AWAY, UNKNOWN, Operations, note_hidden
from ..client.protocol.steps import Steps
from ..client.protocol.wire import MAX_TTL_SECONDS
from ..client.transport.session import Session
from ..conf.caches import UNKNOWN_ALIAS, CacheConfig, cache_config
from ..conf.connection import is_outdated, warn_of_named_server
from ..exceptions import Unreadable

if TYPE_CHECKING:
    from ..nearcache import NearCache

logger = logging.getLogger("django_nats")

T = TypeVar("T")

MISSING: Any = object()
"""Stands for the value of a key that has none, or none that can be read."""

_IMMUTABLE = frozenset([str, bytes, int, float, bool, type(None)])
_MAX_MEMO_BYTES = 2048  # decoding a larger value costs little compared with handling it
_MAX_PORTABLE_LENGTH = 250
_PORTABLE_KEY = re.compile(f"[!-~]{{1,{_MAX_PORTABLE_LENGTH}}}")
_PORTABLE_TEXT = re.compile("[!-~\n]+")
_DJANGO_MAKE_KEY = BaseCache.make_key  # kept here, since a test may replace BaseCache.make_key


def _number(timeout: Any) -> float:
    if isinstance(timeout, (str, bytes, bytearray)):  # which float() would parse
        raise TypeError
    return float(timeout)


@lru_cache(maxsize=16_384, typed=True)
def _portable_key(prefix: str, version: int, key: str) -> str:
    """Return the key that Django makes. Raise ValueError if Django would warn about it."""
    made_key = str(default_key_func(key, prefix, version))
    if not _PORTABLE_KEY.fullmatch(made_key):
        raise ValueError(made_key)
    return made_key


class Core(Operations, BaseCache):
    """Settings, and the conversion of keys and values to those of the bucket and back.

    A made key is a key with prefix and version, as ``make_key()`` returns it. The bucket knows made
    keys only.
    """

    fail_open: bool

    def __init__(self, location: object, params: dict[str, Any]) -> None:
        super().__init__(params)
        timeout = params.get("timeout", params.get("TIMEOUT", 300))
        if isinstance(timeout, float):
            self.default_timeout = timeout  # Django truncates it to an integer
        self._given = location, params
        self._configure()
        key_methods = (type(self).make_key, type(self).validate_key)
        self._has_django_key_methods = key_methods == (_DJANGO_MAKE_KEY, Core.validate_key)

    def _configure(self) -> None:
        location, params = self._given
        config = cache_config(location, params)
        self.alias = config.alias
        self.fail_open = config.fail_open
        self._codec = config.codec
        # Django creates a cache object for each thread and request, and closes it afterwards.
        # The session and the bucket belong to the process instead.
        self._session = process.session(config.connection)
        self._bucket: Bucket = process.bucket(config.connection, config.bucket)
        self._near = self._near_cache(config)
        self._checked_for_tests = False
        self._config = config  # last: by it, other threads see whether the rest is outdated

    def _check_for_tests(self) -> None:
        """Use the server of the test run, if this process runs tests by now.

        Called before each operation if the server is embedded, otherwise before the first.
        """
        connection = self._config.connection
        if is_outdated(connection):
            self._configure()
        elif connection.embedded is None:
            if self.alias != UNKNOWN_ALIAS:
                warn_of_named_server(f'CACHES["{self.alias}"]', connection)
            self._checked_for_tests = True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.alias}: bucket {self._config.bucket.name}>"

    @property
    def config(self) -> CacheConfig:
        """Return what the settings of this alias say, with defaults filled in. Read-only."""
        return self._config

    @property
    def bucket(self) -> Bucket:
        """Return the bucket that holds the values. Read-only.

        Every cache of this process with the same connection and bucket settings shares it. Its
        operations are generators of steps, which ``django_nats.client.drivers`` runs.
        """
        return self._bucket

    @property
    def session(self) -> Session:
        """Return the process's connection to the servers. Read-only.

        Every cache of this process with the same connection settings shares it.
        """
        if not self._checked_for_tests:
            self._check_for_tests()
        return self._session

    @property
    def near(self) -> NearCache | None:
        """Return the near cache, with its contents and its state; None without NEAR_CACHE."""
        return self._near

    def _near_cache(self, config: CacheConfig) -> NearCache | None:
        if config.near_cache is None:
            return None
        from ..nearcache import head_of, near_cache  # not imported in processes without one

        head = head_of(self)
        return near_cache(config.alias, config.connection, config.bucket, config.near_cache, head)

    def close(self, **kwargs: Any) -> None:
        """Do nothing.

        Django closes every cache after each request, but the connection belongs to the process.
        """

    async def aclose(self, **kwargs: Any) -> None:
        """Do nothing. Django's own method would start a thread for it."""

    def make_and_validate_key(self, key: str, version: int | None = None) -> str:
        """Return the key under which the bucket stores a value, as KEY_FUNCTION makes it.

        Warn as Django does about keys that memcached would refuse.
        """
        # Making a key takes longer than finding a copy, so made keys are cached. Only for these
        # exact types: equal values of other types may be written differently, such as
        # Decimal("1.0") and 1.00.
        if type(key) is type(self.key_prefix) is str and self._makes_django_keys():
            if version is None:
                version = self.version
            if type(version) is int:
                try:
                    return _portable_key(self.key_prefix, version, key)
                except ValueError:
                    pass  # Django's own method makes the key, and warns
        return super().make_and_validate_key(key, version)

    def _made_keys(self, keys: Iterable[str], version: int | None) -> dict[str, str]:
        """Return keys by what make_and_validate_key() returns for them.

        The usual keys are made and checked together, which takes a seventh of the time.
        """
        keys = list(keys)
        if set(map(type, keys)) == {str} and type(self.key_prefix) is str:
            if version is None:
                version = self.version
            if type(version) is int and self._makes_django_keys():
                head = f"{self.key_prefix}:{version}:"
                made = [head + key for key in keys]
                # No made key holds a line break, as there are as many lines as keys.
                text = "\n".join(made)
                if (
                    _PORTABLE_TEXT.fullmatch(text)
                    and text.count("\n") == len(made) - 1
                    and max(map(len, made)) <= _MAX_PORTABLE_LENGTH
                ):
                    return dict(zip(made, keys, strict=True))
        return {self.make_and_validate_key(key, version): key for key in keys}

    def _makes_django_keys(self) -> bool:
        """Return whether keys are made by Django's own functions.

        A custom function may depend on more than its arguments, such as on a tenant, so its results
        are not cached. The same holds for methods that were set on this object.
        """
        own = self.__dict__
        djangos = self._has_django_key_methods and self.key_func is default_key_func
        return djangos and "make_key" not in own and "validate_key" not in own

    def validate_key(self, key: str) -> None:
        """Warn as Django does about keys that memcached would refuse."""
        # The usual key needs no more than this match: Django looks at each character.
        if not _PORTABLE_KEY.fullmatch(key):
            super().validate_key(key)

    def get_backend_timeout(self, timeout: Any = DEFAULT_TIMEOUT) -> float | None:
        """Return a timeout in seconds: 0 or less to store nothing, None to never expire.

        The result is at most 100 years, since the server cannot handle more. Raise TypeError if the
        timeout is not a number.
        """
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        if timeout is None:
            return None
        try:
            seconds = _number(timeout)
        except OverflowError:
            seconds = math.inf if timeout > 0 else -math.inf
        except (TypeError, ValueError):
            raise TypeError(f"timeout must be a number of seconds, not {timeout!r}") from None
        if math.isnan(seconds):
            raise TypeError("timeout must be a number of seconds, not NaN")
        return min(seconds, MAX_TTL_SECONDS)

    def _write(self, made_key: str, value: Any, seconds: float | None) -> Write:
        payload, format = self._codec.encode(value, key=made_key)
        return Write(payload, format, seconds)

    def _writes(
        self, keys: Mapping[str, str], data: Mapping[str, Any], seconds: float | None
    ) -> dict[str, Write]:
        """Return writes by their made keys, given the keys in ``data`` by their made keys."""
        encode = self._codec.encode
        times = (seconds, None)
        return {
            made_key: new_write(encode(data[key], key=made_key) + times)
            for made_key, key in keys.items()
        }

    def _write_keeping_expiry(self, made_key: str, value: Any, entry: Entry) -> Write:
        """Return a write of a new value that expires when the entry would."""
        write = self._write(made_key, value, self._seconds_left(entry))
        return write._replace(expires=entry.expires)

    def _as_read(self, made_key: str, value: Any, write: Write) -> Any:
        """Return what a reader of the written value gets.

        It is a copy, of the types that the serializer restores.
        """
        try:
            return self._codec.decode(write.payload, write.format, key=made_key)
        except Unreadable:
            return value  # the serializer cannot read what it wrote: readers get a miss

    def _value(self, made_key: str, entry: Entry | None) -> Any:
        """Decode the value of an entry. Return MISSING if there is none, or if it is unreadable.

        Count a hit or a miss.
        """
        if entry is None:
            self._bucket.misses += 1
            return MISSING
        return self._decoded(made_key, entry.payload, entry.format)

    def _decoded(self, made_key: str, payload: bytes, format: str | None) -> Any:
        """Decode a value. Return MISSING if it is unreadable. Count a hit or a miss."""
        bucket = self._bucket
        try:
            value = self._codec.decode(payload, format, key=made_key)
        except Unreadable as error:
            bucket.misses += 1
            logger.warning(
                "Cache %r: the value of %r is unreadable and counts as missing: %s",
                self.alias,
                made_key,
                error,
            )
            return MISSING
        bucket.hits += 1
        return value

    def _near_value(self, near: NearCache, made_key: str) -> Any:
        """Return the value of the near cache's copy of a key.

        Return MISSING if the near cache knows that the key has no value, and UNKNOWN if it has no
        copy: then the server must be asked.
        """
        copy = near.find(made_key)
        if copy is None:
            near.start()
            return UNKNOWN
        memo = copy.memo
        if memo is not None and memo[0] is self._codec:
            self._bucket.hits += 1
            return memo[1]
        value = self._value(made_key, copy.entry)
        if type(value) in _IMMUTABLE and copy.size < _MAX_MEMO_BYTES:
            copy.memo = self._codec, value
        return value

    def _seconds_left(self, entry: Entry) -> float | None:
        """Return the seconds until an entry expires, or None if it never does."""
        if entry.expires is None:
            return None
        return max(0.001, entry.expires - self._bucket.clock.now())

    def _result_or(self, steps: Steps[T], away: T) -> Steps[T]:
        """Return the result of the steps, or ``away`` under FAIL_OPEN while the server is away."""
        try:
            return (yield from steps)
        except AWAY as error:
            if not self.fail_open:
                raise
            note_hidden(error)
            return away
