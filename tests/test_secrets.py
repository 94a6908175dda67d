"""Passwords, tokens and seeds do not appear in errors, debug pages or logs."""

from __future__ import annotations

import logging
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory, override_settings
from django.views.debug import ExceptionReporter

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.devserver import NatsServer
from django_nats.exceptions import AuthenticationFailed, NatsError
from tests.conftest import PATIENT
from tests.support import accounts
from tests.support.logins import authorization

# Not literals, since the debug page shows the source around each frame.
SECRET = secrets.token_hex(8)
WRONG = secrets.token_hex(8)


@pytest.fixture
def server_with_password() -> Iterator[NatsServer]:
    with NatsServer(token="", config=authorization(f'user: web, password: "{SECRET}"')) as running:
        yield running
        process.close()


def make(location: object, **options: object) -> NatsCache:
    return NatsCache(location, {"OPTIONS": {"BUCKET": "secrets", **PATIENT, **options}})


def debug_page(fail: Callable[[], object]) -> str:
    """Return Django's debug page for the error of a function, with all frames' variables."""
    with override_settings(DEBUG=True):
        try:
            fail()
        except Exception:
            reporter = ExceptionReporter(RequestFactory().get("/"), *sys.exc_info())
            html = reporter.get_traceback_html()
            return f"{html}\n{reporter.get_traceback_text()}"
    raise AssertionError("nothing was raised")


def wrong_logins(tmp_path: Path) -> list[tuple[str, dict[str, object]]]:
    """Return the secret and the options of each way to log in."""
    stranger, other = accounts.user().seed, accounts.Operator()
    credentials = tmp_path / "web.creds"
    other.write_credentials(credentials)
    seed = credentials.read_text().splitlines()[5]
    assert seed.startswith("SU")
    return [
        (WRONG, {"USER": "web", "PASSWORD": WRONG}),
        (WRONG, {"TOKEN": WRONG}),
        (stranger, {"NKEY_SEED": stranger}),
        (f"SUAX{WRONG}", {"NKEY_SEED": f"SUAX{WRONG}"}),
        (seed, {"CREDENTIALS": credentials}),
        (WRONG, {"USER": "web", "PASSWORD": WRONG, "TLS": {"CA": "no"}}),
    ]


def test_errors_and_the_debug_page_show_no_secrets(
    server_with_password: NatsServer, tmp_path: Path
) -> None:
    for secret, options in wrong_logins(tmp_path):
        cache = make(server_with_password.url, **options)
        # The first call waits until the connection fails; the second is refused at once.
        for _ in range(2):
            page = debug_page(lambda: cache.get("key"))  # noqa: B023
            assert "No connection to NATS at" in page
            assert secret not in page


def test_the_debug_page_of_a_lost_connection_shows_no_secrets(
    server_with_password: NatsServer,
) -> None:
    cache = make(server_with_password.url, USER="web", PASSWORD=SECRET)
    cache.set("key", "value")
    server_with_password.kill()

    def ask() -> None:
        for _ in range(3):
            cache.get("key")

    page = debug_page(ask)
    assert "nats://127.0.0.1" in page
    assert SECRET not in page


async def test_the_debug_page_of_an_async_view_shows_no_secrets(
    server_with_password: NatsServer,
) -> None:
    cache = make(server_with_password.url, USER="web", PASSWORD=WRONG)
    with pytest.raises(AuthenticationFailed) as caught:
        await cache.aget("key")
    own = caught.tb.tb_next  # skip this test's frame, whose variables are secret
    page = debug_page(lambda: throw(caught.value.with_traceback(own)))
    assert "drivers.py" in page
    assert WRONG not in page


def throw(error: Exception) -> NoReturn:
    raise error


@pytest.mark.parametrize(
    "options",
    [
        {"PASSWORD": SECRET},
        {"USER": "web", "PASSWORD": SECRET, "TOKEN": SECRET},
        {"TOKEN": SECRET, "REPLICAS": 9},
        {"TOKEN": SECRET, "SERIALIZER": "nowhere.Serializer"},
        {"PASSWROD": SECRET},
        {"USER": "web", "PASSWORD": SECRET.encode()},
        {"NKEY_SEED": [SECRET]},
    ],
)
def test_the_debug_page_of_wrong_settings_shows_no_secrets(options: dict[str, object]) -> None:
    entry: dict[str, object] = {
        "BACKEND": "django_nats.cache.NatsCache",
        "LOCATION": "nats://127.0.0.1:4222",
        "OPTIONS": options,
    }
    with override_settings(CACHES={"default": entry}):
        page = debug_page(use_default_cache)
    assert "ImproperlyConfigured" in page
    assert "create_connection" in page
    assert "&lt;options " in page
    assert SECRET not in page


def use_default_cache() -> None:
    caches["default"].get("key")


def test_wrong_settings_are_not_modified() -> None:
    options = {"TOKEN": "hunter2", "REPLICAS": 9}
    with pytest.raises(ImproperlyConfigured):
        NatsCache("nats://127.0.0.1", {"OPTIONS": options})
    assert repr(options) == "{'TOKEN': 'hunter2', 'REPLICAS': 9}"


def test_logs_show_no_secrets(
    server_with_password: NatsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("django_nats", "nats", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    make(server_with_password.url, USER="web", PASSWORD=SECRET).set("key", "value")
    known = [SECRET]
    for secret, options in wrong_logins(tmp_path):
        known.append(secret)
        with pytest.raises(NatsError):
            make(server_with_password.url, **options).get("key")
    process.close()
    assert "No connection to NATS at" in caplog.text
    for secret in known:
        assert secret not in caplog.text
