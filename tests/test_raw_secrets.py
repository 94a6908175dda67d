"""connection() and run() with secrets that functions of the project return."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from django.test import override_settings
from nats.aio.client import Client

from django_nats import connection, run
from django_nats.client import process
from django_nats.devserver import NatsServer
from django_nats.exceptions import NotSent
from tests.conftest import PATIENT
from tests.support import vault

TOKEN = {"FUNCTION": "tests.support.vault.token"}


async def name_of(nc: Client) -> object:
    return nc.options["name"]


@pytest.fixture(autouse=True)
def _project(server: NatsServer) -> Iterator[None]:
    vault.held.clear()
    vault.asked.clear()
    options = {**PATIENT, "TOKEN": TOKEN}
    entry = {"BACKEND": "django_nats.cache.NatsCache", "LOCATION": server.url}
    with override_settings(CACHES={"default": {**entry, "OPTIONS": options}}):
        yield
        process.close()


def test_run_asks_in_a_thread_at_each_connect(server: NatsServer) -> None:
    vault.held["token"] = server.token
    for turn in (1, 2):
        assert run("default", name_of, timeout=60) == "django-nats"
        assert run("default", name_of, timeout=60) == "django-nats"
        assert vault.asked == turn * ["django-nats-secrets"]
        process.close()


async def test_a_block_asks_in_a_thread(server: NatsServer) -> None:
    vault.held["token"] = server.token
    async with connection() as nc:
        assert await name_of(nc) == "django-nats"
    assert vault.asked == ["django-nats-secrets"]


async def test_the_error_of_a_function_is_one_line_without_its_text() -> None:
    vault.held["token"] = PermissionError("s3cret")
    for _ in range(2):
        with pytest.raises(NotSent) as raised:
            async with connection():
                pass
        text = str(raised.value)
        assert "TOKEN: the function tests.support.vault.token failed: PermissionError" in text
        assert "s3cret" not in text


def test_a_function_that_hangs_is_not_asked_again_by_the_next_call_of_run(
    server: NatsServer,
) -> None:
    released, calls = threading.Event(), []

    def token() -> str:
        calls.append(None)
        released.wait(60)
        return server.token

    options = {**PATIENT, "TOKEN": token, "CONNECT_TIMEOUT": 0.05}
    entry = {"BACKEND": "django_nats.cache.NatsCache", "LOCATION": server.url}
    with override_settings(CACHES={"default": {**entry, "OPTIONS": options}}):
        try:
            for _ in range(3):
                with pytest.raises(NotSent, match="could not be read within CONNECT_TIMEOUT"):
                    run("default", name_of, timeout=60)
            assert len(calls) == 1
        finally:
            released.set()
