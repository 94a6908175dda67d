"""Sessions as requests use them, with the sync methods of an engine or the async ones."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from importlib import import_module
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings

SESSIONS, SESSIONS_DB = "django_nats.sessions", "django_nats.sessions_db"
DJANGO_CACHE = "django.contrib.sessions.backends.cache"
DJANGO_CACHED_DB = "django.contrib.sessions.backends.cached_db"
ENGINES = [SESSIONS, SESSIONS_DB]


class Request:
    """One request's session. ``call`` runs a method of the engine by its sync name."""

    def __init__(self, session_key: str | None = None, *, asynchronous: bool = False) -> None:
        self.store = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
        self._asynchronous = asynchronous

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self._asynchronous:
            return async_to_sync(getattr(self.store, f"a{method}"))(*args, **kwargs)
        return getattr(self.store, method)(*args, **kwargs)

    @property
    def key(self) -> Any:
        return self.store.session_key

    @property
    def data(self) -> dict[str, Any]:
        return dict(self.call("items"))

    def load(self) -> Request:
        self.call("items")
        return self

    def set(self, **values: Any) -> Request:
        self.call("update", values)
        return self

    def drop(self, key: str) -> Request:
        self.call("pop", key)
        return self

    def save(self) -> Request:
        self.call("save")
        return self


OpenSession = Callable[..., Request]
"""Opens a session as a request does: ``open_session(key)``, or a new one without a key."""


class PickleSerializer:
    """A SESSION_SERIALIZER that accepts what JSON cannot express."""

    def dumps(self, data: Any) -> bytes:
        return pickle.dumps(data)

    def loads(self, data: bytes) -> Any:
        return pickle.loads(data)
