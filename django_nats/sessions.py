"""Sessions in a cache that lose no update: ``SESSION_ENGINE = "django_nats.sessions"``.

They are stored as Django's ``cache`` engine stores them, under the same keys, so that each engine
reads the sessions of the other.
"""

from __future__ import annotations

from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.backends.cache import SessionStore as CacheStore

from .cache.records import Data, Record
from .cache.sessions import Engine
from .client.operations import AWAY, note_hidden
from .client.protocol.steps import Steps

__all__ = ["SessionStore"]


class SessionStore(Engine, CacheStore):
    """A session in the cache that SESSION_CACHE_ALIAS names.

    While the server is away, operations raise the errors of ``django_nats.exceptions``, and the
    visitor keeps cookie and session. With FAIL_OPEN in the OPTIONS of the cache, a session that
    cannot be loaded is empty, and is not saved, whatever is stored in it. To create or to delete a
    session raises the error nevertheless.
    """

    _is_modified = False

    @property
    def modified(self) -> bool:
        """Return True if the session should be saved, which one that was not loaded is not."""
        return self._is_modified and not self._is_away

    @modified.setter
    def modified(self, value: bool) -> None:
        self._is_modified = value

    def get_expire_at_browser_close(self) -> bool:
        """Return True if the cookie ends with the browser, as it should if its age is unknown."""
        return super().get_expire_at_browser_close() or self._is_away

    async def aget_expire_at_browser_close(self) -> bool:
        """Async version of get_expire_at_browser_close()."""
        return await super().aget_expire_at_browser_close() or self._is_away

    def _load(self) -> Steps[Data]:
        self._record, self._is_away = None, False
        if self.session_key is None:
            return {}
        try:
            data, record = yield from self._records.read(self._cache_key(self.session_key))
        except AWAY as error:
            if not self._cache.fail_open:
                raise
            self._records.hide_key(error)
            note_hidden(error)
            self._is_away = True
            return {}
        if data is None:
            self._session_key = None
            return {}
        self._record = record
        return data

    def _save(self, must_create: bool) -> Steps[None]:
        if self.session_key is None:
            return (yield from self._create())
        data = yield from self._data(no_load=must_create)
        if self.session_key is None:  # it was just found to be missing
            raise UpdateError
        key = self._cache_key(self.session_key)
        if must_create:
            record = yield from self._records.add(key, data, self._seconds(data))
            if record is None:
                raise CreateError
            self._is_away = False
        elif self._is_away:
            return None
        else:
            try:
                record = yield from self._records.update(key, data, self._record, self._seconds)
            except AWAY as error:
                if not self._cache.fail_open:
                    raise
                self._records.hide_key(error)
                note_hidden(error)
                return None
            if record is None:
                raise UpdateError
        self._record = record
        return None

    def _exists(self, session_key: str | None) -> Steps[bool]:
        if not session_key:
            return False
        data, _ = yield from self._records.read(self._cache_key(session_key))
        return data is not None

    def _delete(self, session_key: str | None) -> Steps[None]:
        session_key = session_key or self.session_key
        if session_key is not None:
            yield from self._cache._delete(self._cache_key(session_key))
            if session_key == self.session_key:
                self._is_away = False  # no stored data is unknown any more

    def _take(self, session_key: str, data: Data, record: Record | None) -> Steps[None]:
        yield from self._records.take(self._cache_key(session_key), data, record)
