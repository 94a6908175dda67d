"""Sessions in a database, whose copies a cache has."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from django_nats.sessions_db import copies
from tests.sessions.conftest import outage, proxy, session_cache, use_cache
from tests.support.sessions import SESSIONS_DB, OpenSession, Request

__all__ = ["outage", "proxy", "session_cache", "use_cache"]


@pytest.fixture(autouse=True)
def engine(settings: Any, transactional_db: None) -> Iterator[None]:
    settings.SESSION_ENGINE = SESSIONS_DB
    yield
    copies._doubts.clear()


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def open_session(request: pytest.FixtureRequest) -> OpenSession:
    return partial(Request, asynchronous=request.param)
