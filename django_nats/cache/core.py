"""What every operation of the cache stands on: settings, keys, values, timeouts."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache, default_key_func

from ..client import bridge
from ..client.entry import Entry, Write
from ..client.kv import Bucket
from ..client.session import Session
from ..client.steps import Steps
from ..client.twins import AWAY, UNKNOWN
from ..client.wire import MAX_TTL_SECONDS
from ..conf.caches import cache_config
from ..exceptions import NatsError, Unavailable, Unreadable

if TYPE_CHECKING:
    from ..nearcache import NearCache

logger = logging.getLogger("django_nats")

T = TypeVar("T")

MISSING: Any = object()
_IMMUTABLE = frozenset([str, bytes, int, float, bool, type(None)])
_SMALL = 2048  # bytes; of what is larger, decoding is not what costs
_PORTABLE = re.compile("[!-~]{1,250}")
_DJANGOS_MAKE_KEY = BaseCache.make_key  # whatever a test may put in its place


@lru_cache(maxsize=16_384, typed=True)
def _portable_key(prefix: str, version: int, key: str) -> str:
    """A key as Django makes it. Raises ValueError if it is one to warn of."""
    made = str(default_key_func(key, prefix, version))
    if not _PORTABLE.fullmatch(made):
        raise ValueError(made)
    return made


class Core(BaseCache):
    """Configuration, and the way from keys and values to the bucket's and back."""

    def __init__(self, location: object, params: dict[str, Any]) -> None:
        super().__init__(params)
        timeout = params.get("timeout", params.get("TIMEOUT", 300))
        if isinstance(timeout, float):
            self.default_timeout = timeout  # Django cuts fractions
        self._config = cache_config(location, params)
        self.alias = self._config.alias
        self.fail_open = self._config.fail_open
        self._codec = self._config.codec
        # Django makes a cache object for every thread and request, and closes it after each:
        # session and bucket are the process's.
        self._session = bridge.session(self._config.connection)
        self._bucket: Bucket = bridge.bucket(self._config.connection, self._config.bucket)
        self._near = self._near_cache()
        own = (type(self).make_key, type(self).validate_key)
        self._is_plain = own == (_DJANGOS_MAKE_KEY, Core.validate_key)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.alias}: bucket {self._config.bucket.name}>"

    @property
    def session(self) -> Session:
        """The process's connection to the servers, shared by all that have the same settings."""
        return self._session

    @property
    def near(self) -> NearCache | None:
        """The near cache, with what it holds and how it does; None without NEAR_CACHE."""
        return self._near

    def _near_cache(self) -> NearCache | None:
        config = self._config
        if config.near_cache is None:
            return None
        from ..nearcache import head_of, near_cache  # whoever has none does not pay for it

        head = head_of(self)
        return near_cache(config.alias, config.connection, config.bucket, config.near_cache, head)

    def close(self, **kwargs: Any) -> None:
        """Do nothing: Django closes caches after each request, the connection is the process's."""

    async def aclose(self, **kwargs: Any) -> None:
        """Do nothing, and without the thread that Django's own would take for it."""

    def make_and_validate_key(self, key: str, version: int | None = None) -> str:
        """The key as the bucket knows it, by KEY_FUNCTION; warns as Django does."""
        # Making a key takes longer than finding a copy. Only these types: what is equal need not be
        # written alike, as Decimal("1.0") and 1.00.
        if type(key) is type(self.key_prefix) is str and self._makes_plain_keys():
            if version is None:
                version = self.version
            if type(version) is int:
                try:
                    return _portable_key(self.key_prefix, version, key)
                except ValueError:
                    pass  # the longer way, which warns
        return super().make_and_validate_key(key, version)

    def _makes_plain_keys(self) -> bool:
        """Whether keys are Django's. A function of one's own may depend on more than its arguments,
        as on a tenant, and is called every time; so is what has been put on this very object."""
        own = self.__dict__
        djangos = self._is_plain and self.key_func is default_key_func
        return djangos and "make_key" not in own and "validate_key" not in own

    def validate_key(self, key: str) -> None:
        """Warn as Django does about keys that memcached would not take; any other is fast."""
        if not _PORTABLE.fullmatch(key):
            super().validate_key(key)

    def get_backend_timeout(self, timeout: Any = DEFAULT_TIMEOUT) -> float | None:
        """Seconds for which a value is to live, 0 or less for not at all, None for ever.

        At most a hundred years: more would overflow on the server. Raises TypeError for what is
        no number.
        """
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        if timeout is None:
            return None
        try:
            seconds = float(timeout)
        except OverflowError:
            seconds = math.inf if timeout > 0 else -math.inf
        except (TypeError, ValueError):
            raise TypeError(f"timeout must be a number of seconds, not {timeout!r}") from None
        if math.isnan(seconds):
            raise TypeError("timeout must be a number of seconds, not NaN")
        return min(seconds, MAX_TTL_SECONDS)

    def _write(self, made: str, value: Any, seconds: float | None) -> Write:
        payload, format = self._codec.encode(value, key=made)
        return Write(payload, format, seconds)

    def _rewrite(self, made: str, value: Any, entry: Entry) -> Write:
        """A new value that expires when the entry would."""
        return self._write(made, value, self._remaining(entry))._replace(expires=entry.expires)

    def _value(self, made: str, entry: Entry | None) -> Any:
        """The value of an entry; MISSING when there is none, or none that can be read."""
        bucket = self._bucket
        if entry is None:
            bucket.misses += 1
            return MISSING
        try:
            value = self._codec.decode(entry.payload, entry.format, key=made)
        except Unreadable as error:
            bucket.misses += 1
            logger.warning(
                "Cache %r: the value of %r is taken as missing: %s", self.alias, made, error
            )
            return MISSING
        bucket.hits += 1
        return value

    def _peek(self, near: NearCache, made: str) -> Any:
        """The value of a copy, MISSING where it is known that there is none; UNKNOWN without."""
        copy = near.find(made)
        if copy is None:
            near.start()
            return UNKNOWN
        memo = copy.memo
        if memo is not None and memo[0] is self._codec:
            self._bucket.hits += 1
            return memo[1]
        value = self._value(made, copy.entry)
        if type(value) in _IMMUTABLE and copy.size < _SMALL:
            copy.memo = self._codec, value
        return value

    def _remaining(self, entry: Entry) -> float | None:
        """Seconds an entry still has to live; None for ever."""
        return None if entry.expires is None else max(0.001, entry.expires - self._bucket.now())

    def _or(self, steps: Steps[T], otherwise: T) -> Steps[T]:
        """An operation's result; under FAIL_OPEN, something else when the server is away."""
        try:
            return (yield from steps)
        except AWAY:
            if not self.fail_open:
                raise
            return otherwise


def raise_unavailable(failed: Mapping[str, NatsError]) -> None:
    """Of operations on many keys: a server that is away is no failure of single keys."""
    for error in failed.values():
        if isinstance(error, Unavailable):
            raise error
