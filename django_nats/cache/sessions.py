"""The base of the session engines, which writes each operation once, as steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from django.conf import settings
from django.contrib.sessions.backends.base import VALID_KEY_CHARS, CreateError, SessionBase
from django.core.exceptions import ImproperlyConfigured
from django.utils.crypto import get_random_string

from ..client import drivers
from ..client.protocol.steps import Steps
from ..exceptions import NatsError
from . import NatsCache
from .records import Data, Record, Records

T = TypeVar("T")

_KEY_LENGTH = 32


class Engine(SessionBase):
    """A session that merges its changes with those that other requests have stored meanwhile.

    An engine is a subclass, and of one of Django's engines as well. It has the steps ``_load``,
    ``_save``, ``_exists``, ``_delete`` and ``_take``. They keep in ``_record`` what this object
    knows to be stored, or None if it has neither loaded nor saved anything.
    """

    cache_key_prefix: str
    _cache: NatsCache
    _session_cache: Data
    _record: Record | None = None
    _is_away = False
    """Whether the server was away when the session should have been loaded."""

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        if not isinstance(self._cache, NatsCache):
            raise ImproperlyConfigured(
                f'SESSION_ENGINE "{settings.SESSION_ENGINE}" needs a NatsCache, but '
                f'CACHES["{settings.SESSION_CACHE_ALIAS}"] is a {type(self._cache).__name__}. Name '
                'an alias whose BACKEND is "django_nats.cache.NatsCache" in SESSION_CACHE_ALIAS.'
            )
        self._records = Records(self._cache, self.cache_key_prefix)

    def load(self) -> Data:
        """Return the data of the session, which another request may change at any time."""
        return self._run(self._load_only())

    async def aload(self) -> Data:
        """Async version of load()."""
        return await self._arun(self._load_only())

    def save(self, must_create: bool = False) -> None:
        """Store what has changed since the session was loaded, and read what others have changed.

        With ``must_create``, raise CreateError if the session exists, and without it UpdateError if
        it does not.
        """
        self._run(self._save(must_create))

    async def asave(self, must_create: bool = False) -> None:
        """Async version of save()."""
        await self._arun(self._save(must_create))

    def create(self) -> None:
        """Store the data under a new session key. After an error, the session has its old key."""
        self._run(self._create())

    async def acreate(self) -> None:
        """Async version of create()."""
        await self._arun(self._create())

    def cycle_key(self) -> None:
        """Store the data under a new session key, and delete the old one.

        What other requests have stored under the old key until then is kept, too.
        """
        self._run(self._cycle_key())

    async def acycle_key(self) -> None:
        """Async version of cycle_key()."""
        await self._arun(self._cycle_key())

    def exists(self, session_key: str | None) -> bool:
        """Return True if there is a session with this key."""
        return self._run(self._exists(session_key))

    async def aexists(self, session_key: str | None) -> bool:
        """Async version of exists()."""
        return await self._arun(self._exists(session_key))

    def delete(self, session_key: str | None = None) -> None:
        """Delete the session with this key, by default this session."""
        self._run(self._delete(session_key))

    async def adelete(self, session_key: str | None = None) -> None:
        """Async version of delete()."""
        await self._arun(self._delete(session_key))

    # Steps -----------------------------------------------------------------------------------

    def _run(self, steps: Steps[T]) -> T:
        try:
            return drivers.run(self._cache.session, steps)
        except NatsError as error:
            self._records.hide_key(error)
            raise

    async def _arun(self, steps: Steps[T]) -> T:
        try:
            return await drivers.arun(self._cache.session, steps)
        except NatsError as error:
            self._records.hide_key(error)
            raise

    def _load(self) -> Steps[Data]:
        raise NotImplementedError

    def _save(self, must_create: bool) -> Steps[None]:
        raise NotImplementedError

    def _exists(self, session_key: str | None) -> Steps[bool]:
        raise NotImplementedError

    def _delete(self, session_key: str | None) -> Steps[None]:
        raise NotImplementedError

    def _take(self, session_key: str, data: Data, record: Record | None) -> Steps[None]:
        """Delete a session, and make in ``data`` what others have changed since ``record``."""
        raise NotImplementedError

    def _data(self, *, no_load: bool = False) -> Steps[Data]:
        """Return the data of the session, as ``_get_session()`` does."""
        self.accessed = True
        if not hasattr(self, "_session_cache"):
            is_new = no_load or self.session_key is None
            self._session_cache = {} if is_new else (yield from self._load())
        return self._session_cache

    def _load_only(self) -> Steps[Data]:
        """Load the data. What this object has already remains as it was found."""
        known = self._record, self._is_away
        try:
            return (yield from self._load())
        finally:
            if hasattr(self, "_session_cache"):
                self._record, self._is_away = known

    def _create(self) -> Steps[None]:
        with self._old_key_kept():
            while True:
                self._session_key = get_random_string(_KEY_LENGTH, VALID_KEY_CHARS)
                try:
                    yield from self._save(True)
                except CreateError:
                    continue  # the key is in use
                break
        self.modified = True

    def _cycle_key(self) -> Steps[None]:
        data = yield from self._data()
        old_key, record = self.session_key, self._record
        yield from self._create()
        if old_key is not None:
            yield from self._take(old_key, data, record)

    @contextmanager
    def _old_key_kept(self) -> Iterator[None]:
        """Give the session its old key and record back, unless the block comes to its end."""
        old_key, record = self.session_key, self._record
        try:
            yield
        except BaseException:
            self._session_key, self._record = old_key, record
            raise

    def _cache_key(self, session_key: str) -> str:
        return self.cache_key_prefix + session_key

    def _seconds(self, data: Data) -> Any:
        """Return for how long to store data."""
        return self.get_expiry_age(expiry=data.get("_session_expiry"))
