"""The setting LOCATION, credentials in it, and the embedded server."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.test import override_settings

from django_nats.client.transport.config import ConnectionConfig
from django_nats.conf.django_redis import PAGE
from tests.support.configuring import URL, config, problem

# LOCATION ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "servers"),
    [
        ("", [URL]),
        ("nats://a", ["nats://a:4222"]),
        ("nats://a:1/", ["nats://a:1"]),
        ("NATS://A:1", ["nats://a:1"]),
        ("a", ["nats://a:4222"]),
        ("a:1", ["nats://a:1"]),
        ("tls://a:1", ["tls://a:1"]),
        ("nats://[::1]:1", ["nats://[::1]:1"]),
        ("[::1]", ["nats://[::1]:4222"]),
        ("nats://a:1,nats://b:2", ["nats://a:1", "nats://b:2"]),
        ("a:1; tls://b:2 ,c", ["nats://a:1", "tls://b:2", "nats://c:4222"]),
        (["nats://a:1", "b"], ["nats://a:1", "nats://b:4222"]),
        (("a",), ["nats://a:4222"]),
    ],
)
def test_a_location_names_its_servers(location: object, servers: list[str]) -> None:
    assert config(location).connection == ConnectionConfig(servers=tuple(servers))


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("nats://web:s3cret@a:1", {"user": "web", "password": "s3cret"}),
        ("web:s3cret@a:1", {"user": "web", "password": "s3cret"}),
        ("nats://w%40b:s%3A%2F@a:1", {"user": "w@b", "password": "s:/"}),
        ("nats://s3cret@a:1", {"token": "s3cret"}),
        (["nats://s3cret@a:1", "a:1"], {"token": "s3cret"}),
    ],
)
def test_credentials_in_the_location_are_used_and_not_shown(
    location: object, expected: dict[str, str]
) -> None:
    connection = config(location).connection
    assert set(connection.servers) == {"nats://a:1"}
    assert {"user", "password", "token"} & vars(connection).keys()
    assert {name: getattr(connection, name) for name in expected} == expected
    assert "s3cret" not in connection.where


@pytest.mark.parametrize(
    ("location", "options", "fault"),
    [
        ("nats://a:s3cret@a,nats://a:0ther@b", {}, "has different credentials for different"),
        ("nats://s3cret@a", {"TOKEN": "0ther"}, "and TOKEN are two logins: choose one"),
        (
            "nats://a:s3cret@a",
            {"USER": "b", "PASSWORD": "s3cret"},
            "and USER are two logins: choose one",
        ),
    ],
    ids=["servers", "token", "user"],
)
def test_differing_credentials_are_refused(
    location: str, options: dict[str, str], fault: str
) -> None:
    message = problem(location, **options)
    assert f"LOCATION {fault}" in message
    assert "s3cret" not in message
    assert "0ther" not in message


@pytest.mark.parametrize(
    "location",
    [
        "redis://:s3cret@a:1",
        "ws://:s3cret@a:1",
        "nats://",
        "nats://s3cret@",
        "nats://:s3cret@a:port",
        "nats://:s3cret@a:70000",
        "nats://a:0",
        "nats://:s3cret@a:1/path",
        "nats://a:1?tls=s3cret",
        "nats://[s3cret",
        "a,,b",
        [],
        None,
        5,
        [None],
        {"a": 1},
    ],
)
def test_a_wrong_location_is_refused_without_its_secrets(location: object) -> None:
    message = problem(location)
    assert message.startswith('CACHES["?"]: LOCATION must be ')
    assert '"embedded"' in message
    assert "s3cret" not in message


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("http://user:s3cret@a:1/path", "'http://***@a:1***'"),
        ("nats://user:s3cret", "'nats://user***'"),
        ("nats://user:1234567", "'nats://user***'"),
        ("nats://user:12s3cret", "'nats://user***'"),
        ("nats://a:1,http://b", "'http://b'"),
        (["nats://a", 5], "int"),
        ("nats://a,,nats://b", "''"),
        (None, "None"),
        ([], "[]"),
    ],
)
def test_a_wrong_location_is_shown_with_possible_secrets_masked(
    location: object, shown: str
) -> None:
    assert problem(location).endswith(f', or "embedded", not {shown}.')


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix", "valkey"])
def test_the_location_of_a_redis_server_leads_to_the_page_about_moving(scheme: str) -> None:
    message = problem(f"{scheme}://:s3cret@127.0.0.1:6379/1")
    assert f"not '{scheme}://***@127.0.0.1:6379***'. {PAGE}." in message
    assert problem("redis://a,redis://b").endswith(f"not 'redis://a'. {PAGE}.")


@pytest.mark.parametrize("scheme", ["ws", "wss", "WSS"])
def test_a_websocket_is_refused_with_the_reason(scheme: str) -> None:
    message = problem([f"{scheme}://web:s3cret@nats.example:443", "nats://b"])
    assert f"not '{scheme}://***@nats.example:443'. WebSocket is not supported: " in message
    assert message.endswith("Use the server's port for clients, by default 4222.")
    assert "s3cret" not in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"USER": "a", "PASSWORD": "b", "TOKEN": "c"}, "TOKEN and USER are two ways to log in"),
        ({"TOKEN": "c", "NKEY_SEED": "d"}, "NKEY_SEED and TOKEN are two ways"),
        ({"NKEY_SEED": "d", "CREDENTIALS": "e"}, "CREDENTIALS and NKEY_SEED are two ways"),
        ({"PASSWORD": "b"}, "USER and PASSWORD must be given together"),
    ],
)
def test_two_ways_to_log_in_are_refused(options: dict[str, str], message: str) -> None:
    assert message in problem(**options)


# The embedded server -------------------------------------------------------------------------


def test_embedded_needs_debug_or_allow_embedded(tmp_path: Path) -> None:
    with override_settings(DEBUG=True, BASE_DIR=tmp_path):
        assert config("embedded").connection.embedded == str(tmp_path / ".nats")
    # The same entry is read again when other settings change.
    with override_settings(DEBUG=False, BASE_DIR=tmp_path):
        assert "DEBUG is False" in problem("embedded")
        assert 'set ALLOW_EMBEDDED to True in CACHES["?"]["OPTIONS"].' in problem("embedded")
        assert "DEBUG is False" in problem("embedded", ALLOW_EMBEDDED=False)
        allowed = config("embedded", ALLOW_EMBEDDED=True).connection
        assert allowed.embedded == str(tmp_path / ".nats")
    with override_settings(DEBUG=True, BASE_DIR=str(tmp_path / "moved")):
        assert config("embedded").connection.embedded == str(tmp_path / "moved" / ".nats")
        chosen = config("embedded", EMBEDDED_DIR=tmp_path / "x").connection
        assert chosen.embedded == str(tmp_path / "x")


def test_embedded_buckets_use_file_storage_by_default() -> None:
    with override_settings(DEBUG=True):
        assert config("embedded").bucket.storage == "file"
        assert config("embedded", STORAGE="memory").bucket.storage == "memory"
    assert config(URL).bucket.storage == "memory"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("TOKEN", "s3cret"),
        ("CREDENTIALS", "s3cret"),
        ("TLS", {"CA": "s3cret"}),
        ("JS_DOMAIN", "s3cret"),
        ("JS_API_PREFIX", "s3cret.API"),
    ],
)
def test_embedded_refuses_what_is_for_other_servers(option: str, value: object) -> None:
    with override_settings(DEBUG=True):
        message = problem("embedded", **{option: value})
    assert f'{option} cannot be combined with LOCATION "embedded"' in message
    assert "s3cret" not in message


@pytest.mark.parametrize("location", ["embeded", "Embedded", "emebdded"])
def test_a_misspelt_embedded_gets_a_suggestion(location: str) -> None:
    assert problem(location) == f'CACHES["?"]: LOCATION is {location!r}. Correct it to "embedded".'


def test_a_host_may_have_any_other_name() -> None:
    assert config("embedding-nats").connection.servers == ("nats://embedding-nats:4222",)
