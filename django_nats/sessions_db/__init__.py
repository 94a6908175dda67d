"""Sessions in the database, with copies in a cache: ``SESSION_ENGINE = "django_nats.sessions_db"``.

They are stored as Django's ``cached_db`` engine stores them, under the same keys.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.backends.cached_db import SessionStore as CachedDBStore
from django.contrib.sessions.backends.db import SessionStore as DBStore
from django.core import signing
from django.db import IntegrityError, connections, router, transaction
from django.db.models import F

from ..cache.records import Data, Record
from ..cache.sessions import Engine
from ..client.protocol.steps import Call, Steps
from ..merging import merge
from .copies import Copies

__all__ = ["SessionStore"]


class SessionStore(Engine, CachedDBStore):
    """A session in the database, and a copy of it in the cache that SESSION_CACHE_ALIAS names.

    A save locks the session's row, and makes its changes in what is stored there. So the copy may
    be old without harm to what is saved. While the cache is away, the database serves alone.
    """

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        self._copies = Copies(self._cache, self._records)

    def _load(self) -> Steps[Data]:
        self._record = None
        if self.session_key is None:
            return {}
        key = self._cache_key(self.session_key)
        data, copy = yield from self._copies.find(key)
        if data is not None:
            self._record = copy
            return data
        row, is_current = yield Call(self._read_row, blocks=True)
        if row is None:  # and the session has no key any more
            return {}
        decode = partial(self.decode, row.session_data)
        data = decode()
        sequence = None
        if is_current and copy is not None and copy.sequence is not None:
            seconds = self.get_expiry_age(expiry=row.expire_date)
            sequence = yield from self._copies.fill(key, data, seconds, copy.sequence)
        self._record = Record(sequence, decode)
        return data

    def _save(self, must_create: bool) -> Steps[None]:
        if self.session_key is None:
            return (yield from self._create())
        data = yield from self._data(no_load=must_create)
        if self.session_key is None:  # it was just found to be missing
            raise UpdateError
        key = self._cache_key(self.session_key)
        sequence = None if self._record is None else self._record.sequence
        if must_create:
            sequence = 0
        with self._copies.changing(key) as change:
            storing = (self._store_row, self.session_key, data, must_create)
            text, is_final = yield Call(change, storing, blocks=True)
            if is_final:
                decode = partial(self.decode, text)
                # The copy has the types that the database returns, which may be others.
                copying = self._copies.replace(key, decode(), self._seconds(data), sequence)
                sequence = yield from copying
                self._record = Record(sequence, decode)
            else:
                yield from self._copies.discard(key)
                # What was loaded remains the base of the changes, which may be rolled back.
                if self._record is not None:
                    self._record = None if must_create else self._record._replace(sequence=None)
        return None

    def _exists(self, session_key: str | None) -> Steps[bool]:
        if not session_key:
            return False
        data, _ = yield from self._copies.find(self._cache_key(session_key))
        if data is not None:
            return True
        found: bool = yield Call(DBStore.exists, (self, session_key), blocks=True)
        return found

    def _delete(self, session_key: str | None) -> Steps[None]:
        session_key = session_key or self.session_key
        if session_key is None:
            return
        key = self._cache_key(session_key)
        with self._copies.changing(key) as change:
            yield Call(change, (self._delete_row, session_key), blocks=True)
            yield from self._copies.discard(key)

    def _take(self, session_key: str, data: Data, record: Record | None) -> Steps[None]:
        key = self._cache_key(session_key)
        with self._copies.changing(key) as change:
            yield Call(change, (self._take_row, session_key, data, record), blocks=True)
            yield from self._copies.discard(key)

    # The database ----------------------------------------------------------------------------

    def _read_row(self) -> tuple[Any, bool]:
        """Return the row of this session, or None, and whether a copy of it may be stored.

        In a transaction, the row may be an old one, or have changes that are rolled back. A
        replica may lag behind.
        """
        row = self._get_session_from_db()  # type: ignore[attr-defined]
        if row is None:
            return None, False
        using = self._database(row.session_key)
        return row, row._state.db == using and not connections[using].in_atomic_block

    def _store_row(self, session_key: str, data: Data, must_create: bool) -> tuple[str, bool]:
        """Store the session, and make in ``data`` what others have changed.

        Return the text that was stored, and whether others can see it: not so in a transaction.
        """
        using = self._database(session_key)
        is_final = self._discard_on_commit(session_key, using)
        try:
            with transaction.atomic(using=using):
                if not must_create:
                    row = self._locked_row(session_key, using)
                    if row is None:
                        raise UpdateError
                    if self._record is not None:
                        self._merge(data, row, self._record)
                row = self.create_model_instance(data)
                row.save(force_insert=must_create, force_update=not must_create, using=using)
                if not is_final:
                    committed = partial(self._note_commit, session_key, row.session_data)
                    transaction.on_commit(committed, using)
        except IntegrityError:
            if must_create:
                raise CreateError from None
            raise
        return row.session_data, is_final

    def _note_commit(self, session_key: str, text: str) -> None:
        if self.session_key == session_key:
            self._record = Record(None, partial(self.decode, text))

    def _delete_row(self, session_key: str) -> None:
        self._discard_on_commit(session_key, self._database(session_key))
        DBStore.delete(self, session_key)

    def _take_row(self, session_key: str, data: Data, record: Record | None) -> None:
        using = self._database(session_key)
        self._discard_on_commit(session_key, using)
        with transaction.atomic(using=using):
            row = self._locked_row(session_key, using)
            if row is not None:
                if record is not None:
                    self._merge(data, row, record)
                row.delete()

    def _merge(self, data: Data, row: Any, record: Record) -> None:
        theirs = self.decode(row.session_data)
        if theirs or self._is_readable(row.session_data):
            merge(data, theirs, base=record.decode(), as_read=self._as_read)

    def _is_readable(self, text: str) -> bool:
        """Return False for text that decode() takes for an empty session, as it cannot read it.

        It may be corrupted, or of another release. Merged as an empty session, it would delete what
        this request has loaded, so it is replaced.
        """
        try:
            signing.loads(text, salt=self.key_salt, serializer=self.serializer)
        except Exception:
            return False
        return True

    def _as_read(self, data: Any) -> Data:
        """Return data as it is read from a row."""
        return self.decode(self.encode(data))

    def _locked_row(self, session_key: str, using: str) -> Any:
        """Return the row of a session, locked until the transaction ends, or None without one."""
        rows = self.model.objects.using(using).filter(session_key=session_key)
        if not connections[using].features.has_select_for_update:
            # In SQLite, only a write takes a lock, which must be taken before the row is read.
            rows.update(expire_date=F("expire_date"))
        try:
            return rows.select_for_update().get()
        except self.model.DoesNotExist:
            return None

    def _database(self, session_key: str) -> str:
        return router.db_for_write(self.model, instance=self.model(session_key=session_key))

    def _discard_on_commit(self, session_key: str, using: str) -> bool:
        """Delete the copy once more after the commit, and return False if in a transaction.

        Until then, others see the old row, and may copy it.
        """
        if not connections[using].in_atomic_block:
            return True
        key = self._cache_key(session_key)
        transaction.on_commit(lambda: self._run(self._copies.discard(key)), using)
        return False
