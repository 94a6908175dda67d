"""connection() and run(): which servers an alias means, and what their import loads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from nats.aio.client import Client

import django_nats
from django_nats import connection, run, testrun
from django_nats.client import process
from django_nats.devserver import NatsServer
from django_nats.exceptions import NamedServerWarning
from tests.conftest import PATIENT

ROOT = Path(__file__).resolve().parent.parent
LOCAL = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
NATS = {"BACKEND": "django_nats.cache.NatsCache"}


async def name_of(nc: Client) -> object:
    """Return the name that the client has given to the server."""
    return nc.options["name"]


def cache_at(server: NatsServer, **options: Any) -> dict[str, Any]:
    common = {"TOKEN": server.token, **PATIENT, **options}
    return {**NATS, "LOCATION": server.url, "OPTIONS": common}


def counters_at(server: NatsServer, **options: Any) -> dict[str, Any]:
    common = {"TOKEN": server.token, "CONNECT_TIMEOUT": 30.0, **options}
    return {"LOCATION": server.url, **common}


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    process.close()


async def names(alias: str) -> set[object]:
    """Return the names of the clients that both functions give for an alias."""
    async with connection(alias) as nc:
        return {await name_of(nc), run(alias, name_of, timeout=60)}


# Aliases -------------------------------------------------------------------------------------


async def test_an_alias_is_looked_up_in_both_settings(server: NatsServer) -> None:
    caches = {"default": LOCAL, "pages": cache_at(server, NAME="of a cache")}
    with override_settings(
        CACHES=caches, NATS_COUNTERS={"totals": counters_at(server, NAME="of counters")}
    ):
        assert await names("pages") == {"of a cache"}
        assert await names("totals") == {"of counters"}


async def test_the_cache_wins_if_both_settings_have_an_alias(server: NatsServer) -> None:
    with override_settings(
        CACHES={"default": cache_at(server, NAME="of a cache")},
        NATS_COUNTERS={"default": counters_at(server, NAME="of counters")},
    ):
        assert await names("default") == {"of a cache"}
        async with connection() as nc:
            assert await name_of(nc) == "of a cache"


async def test_a_cache_with_another_backend_does_not_win(server: NatsServer) -> None:
    """Django adds an alias "default" to projects that have no CACHES."""
    with override_settings(
        CACHES={"default": LOCAL},
        NATS_COUNTERS={"default": counters_at(server, NAME="of counters")},
    ):
        assert await names("default") == {"of counters"}


def refused(alias: str) -> str:
    with pytest.raises(ImproperlyConfigured) as raised:
        connection(alias)
    with pytest.raises(ImproperlyConfigured) as also:
        run(alias, name_of)
    assert str(raised.value) == str(also.value)
    return str(raised.value)


def test_the_error_of_an_unknown_alias_lists_those_that_exist(server: NatsServer) -> None:
    caches = {"default": LOCAL, "pages": cache_at(server)}
    with override_settings(CACHES=caches, NATS_COUNTERS={"totals": counters_at(server)}):
        assert refused("pagse") == (
            'Neither CACHES nor NATS_COUNTERS has an alias "pagse". '
            'Known: CACHES["pages"], NATS_COUNTERS["totals"].'
        )


def test_the_error_of_an_alias_on_another_backend_names_it() -> None:
    with override_settings(CACHES={"default": LOCAL}):
        message = refused("default")
        assert 'CACHES["default"] has the BACKEND \'django.core.cache.backends.locmem.' in message
        assert message.endswith("Add an entry to one of them.")


def test_settings_that_are_wrong_are_named(server: NatsServer) -> None:
    with override_settings(CACHES={"default": cache_at(server, TOKNE="x")}):
        assert refused("default").startswith("CACHES[\"default\"]: unknown option 'TOKNE'")


async def test_other_settings_are_used_from_the_next_call_on(server: NatsServer) -> None:
    for name in ("one", "other"):
        with override_settings(CACHES={"default": cache_at(server, NAME=name)}):
            assert await names("default") == {name}


# Embedded servers and test runs --------------------------------------------------------------


async def ports(alias: str) -> set[object]:
    """Return the ports of the servers that both functions connect to."""

    async def port_of(nc: Client) -> object:
        return nc.connected_url and nc.connected_url.port

    async with connection(alias) as nc:
        return {await port_of(nc), run(alias, port_of, timeout=60)}


async def test_the_embedded_server_is_started_and_shared_with_the_cache(tmp_path: Path) -> None:
    options = {"EMBEDDED_DIR": tmp_path, "ALLOW_EMBEDDED": True, **PATIENT}
    entry = {**NATS, "LOCATION": "embedded", "OPTIONS": options}
    counters = {"LOCATION": "embedded", "EMBEDDED_DIR": tmp_path, "ALLOW_EMBEDDED": True}
    with override_settings(CACHES={"default": entry}, NATS_COUNTERS={"totals": counters}):
        of_cache = await ports("default")
        assert len(of_cache) == 1
        assert await ports("totals") == of_cache


async def test_a_test_run_has_a_server_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"EMBEDDED_DIR": tmp_path, "ALLOW_EMBEDDED": True, **PATIENT}
    with override_settings(
        CACHES={"default": {**NATS, "LOCATION": "embedded", "OPTIONS": options}}
    ):
        outside = await ports("default")
        monkeypatch.setattr(testrun, "_runs", {})
        monkeypatch.setattr(testrun, "_runs_tests", lambda: True)
        inside = await ports("default")
        assert len(outside) == len(inside) == 1
        assert inside != outside
        monkeypatch.setattr(testrun, "_runs_tests", lambda: False)
        assert await ports("default") == outside


def test_a_test_run_is_warned_of_a_server_that_settings_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(testrun.VARIABLE, "of this test")  # removed in the end
    monkeypatch.setattr(testrun, "_runs", {})
    monkeypatch.setattr(testrun, "_runs_tests", lambda: True)
    entry = {**NATS, "LOCATION": "nats://nats.internal:4222"}
    with (
        override_settings(CACHES={"raw": entry}),
        pytest.warns(NamedServerWarning, match=r'CACHES\["raw"\]'),
    ):
        connection("raw")


# What their import loads ---------------------------------------------------------------------


def printed(script: str) -> str:
    python = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(python, cwd=ROOT, capture_output=True, text=True)
    assert not done.stderr
    return done.stdout


def test_importing_the_functions_loads_no_nats_and_reads_no_settings() -> None:
    assert printed("""
import sys, threading
from django_nats import connection, run
print("nats" in sys.modules, threading.active_count(), "django_nats.counters" in sys.modules)
""").split() == ["False", "1", "False"]


def test_other_names_of_the_package_are_not_found() -> None:
    assert not hasattr(django_nats, "no_such_name")
    assert {"connection", "run"} <= {*django_nats.__all__}
