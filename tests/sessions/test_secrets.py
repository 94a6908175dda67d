"""Session keys, which are secrets: no error and no log has them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from django_nats.client import process
from django_nats.devserver import NatsServer
from django_nats.exceptions import NatsError
from tests.conftest import PATIENT
from tests.support.sessions import Request

_USERS = """
authorization { timeout: 60, users: [
  { user: admin, password: pw }
  { user: no-publish, password: pw, permissions: { publish: { deny: ["$KV.>"] } } }
  { user: no-read, password: pw, permissions: { publish: {
    deny: ["$JS.API.DIRECT.>", "$JS.API.STREAM.MSG.>"]
  } } }
] }
"""


@pytest.fixture(scope="module")
def users() -> Iterator[NatsServer]:
    with NatsServer(config=_USERS, token="") as server:
        yield server
        process.close()


@pytest.fixture
def use(users: NatsServer, engine: str, settings: Any) -> Callable[..., None]:
    """Keep sessions in a cache that a user of the server has."""

    def use(user: str, **options: Any) -> None:
        options = {**PATIENT, "BUCKET": "secrets", "USER": user, "PASSWORD": "pw", **options}
        backend = "django_nats.cache.NatsCache"
        settings.CACHES = {
            "default": {"BACKEND": backend, "LOCATION": users.url, "OPTIONS": options}
        }

    return use


def errors_of(request: Request) -> str:
    """Return the traces of what goes wrong in a request that changes its session."""
    traces = []
    operations: list[Callable[[], Any]] = [
        request.load,
        lambda: request.set(user=2).save(),
        lambda: request.set(cart="x" * 3_000_000).save(),
        lambda: request.call("cycle_key"),
        lambda: request.call("delete"),
        lambda: request.call("exists", request.key),
    ]
    for operation in operations:
        try:
            operation()
        except NatsError:
            traces.append(traceback.format_exc())
    return "\n".join(traces)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("user", ["admin", "no-publish", "no-read"])
@pytest.mark.parametrize("fail_open", [False, True], ids=["", "FAIL_OPEN"])
def test_no_error_and_no_log_has_a_session_key(
    use: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    user: str,
    fail_open: bool,
    asynchronous: bool,
) -> None:
    monkeypatch.setattr("django_nats.client.operations._QUIET_S", 0)
    use("admin")
    key = Request().set(user=1).save().key
    use(user, FAIL_OPEN=fail_open)
    request = Request(key, asynchronous=asynchronous)
    assert key not in errors_of(request)
    with suppress(NatsError):
        request.call("flush")
    assert key not in caplog.text
