"""``manage.py nats status``."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.cache import caches

from django_nats.devserver import NatsServer
from tests.conftest import PATIENT
from tests.management.buckets import DEAD, failing_nats, make_stream, nats, stream
from tests.management.conftest import ConfigureCaches

pytestmark = pytest.mark.smoke


def test_status_shows_server_and_bucket(
    configure_caches: ConfigureCaches, server: NatsServer
) -> None:
    configure_caches(default={"MAX_BYTES": "8MiB"})
    caches["default"].set("key", "value")

    output = nats("status")

    assert f"default: bucket {caches['default'].bucket.config.name} on {server.url}" in output
    assert "server   nats-server 2." in output
    assert "storage  memory, replicas: 1" in output
    assert "entries  1, no limit" in output
    assert f"bytes    {stream()['state']['bytes']} of at most 8,388,608" in output
    assert "values   up to 1,048,576 bytes each" in output
    assert "differs" not in output


def test_status_shows_the_subjects_of_a_near_cache(configure_caches: ConfigureCaches) -> None:
    configure_caches(default={"NEAR_CACHE": {"KEYS": ["flags:*", "config"]}})
    caches["default"].set("key", "value")
    bucket = caches["default"].bucket.config.name
    follows = [f"$KV.{bucket}.{each}" for each in ("=.*.config", "=.*.flags.>", "=clear")]

    assert f"  near     copies of flags:*, config, following {', '.join(follows)}\n" in nats(
        "status"
    )

    (default,) = json.loads(nats("status", "--json"))["caches"]
    assert default["near_cache"] == ["flags:*", "config"]
    assert default["follows"] == follows


def test_status_shows_no_near_cache_without_the_option(configure_caches: ConfigureCaches) -> None:
    configure_caches(default={})
    caches["default"].set("key", "value")

    assert "  near " not in nats("status")
    (default,) = json.loads(nats("status", "--json"))["caches"]
    assert (default["near_cache"], default["follows"]) == ([], [])


def test_status_does_not_create_an_absent_bucket(configure_caches: ConfigureCaches) -> None:
    configure_caches(default={})

    assert "absent" in nats("status")
    assert stream()["error"]["err_code"] == 10059


def test_status_shows_how_a_bucket_differs_from_settings(configure_caches: ConfigureCaches) -> None:
    configure_caches(default={})
    make_stream(discard="new")

    output = nats("status")

    assert "differs  discard: 'new' on the server, 'old' in settings" in output
    assert "manage.py nats setup" in output


def test_status_prints_json_for_programs(
    configure_caches: ConfigureCaches, server: NatsServer
) -> None:
    configure_caches(default={"MAX_ENTRIES": 10}, absent={})
    caches["default"].set("key", "value")

    default, absent = json.loads(nats("status", "--json"))["caches"]

    assert default["alias"] == "default"
    assert default["servers"] == server.url
    assert default["server"].startswith("nats-server 2.")
    assert 0 < default["rtt"] < PATIENT["REQUEST_TIMEOUT"]
    assert default["exists"] is True
    assert (default["storage"], default["replicas"]) == ("memory", 1)
    assert (default["entries"], default["max_entries"]) == (1, 10)
    assert (default["bytes"], default["max_bytes"]) == (stream()["state"]["bytes"], None)
    assert default["max_value_size"] == 1024 * 1024
    assert default["differences"] == []
    assert (absent["alias"], absent["exists"], absent["error"]) == ("absent", False, None)


def test_status_fails_for_an_unreachable_server(configure_caches: ConfigureCaches) -> None:
    configure_caches(default={}, away={"LOCATION": DEAD})

    output, error = failing_nats("status", "--json")

    default, away = json.loads(output)["caches"]
    assert default["error"] is None
    assert away["error"].startswith(f"No connection to NATS at {DEAD}")
    assert error == 'The state could not be read of CACHES["away"].'


@pytest.mark.parametrize("subcommand", ["setup", "status"])
def test_aliases_of_one_name_are_told_apart(settings: Any, subcommand: str) -> None:
    settings.CACHES = {
        "default": {"BACKEND": "django_nats.cache.NatsCache", "LOCATION": "nats://127.0.0.1:1"}
    }
    settings.NATS_COUNTERS = {"default": {"LOCATION": "nats://127.0.0.1:1"}}

    error = failing_nats(subcommand)[1]

    assert 'CACHES["default"], NATS_COUNTERS["default"].' in error


@pytest.mark.parametrize("subcommand", ["setup", "status"])
def test_a_server_without_jetstream_is_reported_with_what_to_change(
    settings: Any, subcommand: str
) -> None:
    with NatsServer(jetstream=False) as server:
        options = {"TOKEN": server.token, **PATIENT}
        settings.CACHES = {
            "default": {
                "BACKEND": "django_nats.cache.NatsCache",
                "LOCATION": server.url,
                "OPTIONS": options,
            }
        }

        output, error = failing_nats(subcommand)

    assert "JetStream is not enabled on the NATS server" in output
    assert "nats-server with -js, or with `jetstream {}` in its configuration" in output
    assert "answer" not in output + error
