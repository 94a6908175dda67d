from __future__ import annotations

import io
import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.core.management import CommandError, call_command

from django_nats.cache import NatsCache, nats_caches
from django_nats.client import bridge
from django_nats.client.steps import Steps
from django_nats.devserver import NatsServer
from tests.conftest import api

pytestmark = pytest.mark.smoke

DEAD = "nats://127.0.0.1:1"

Configure = Callable[..., None]


@pytest.fixture
def configure(settings: Any, server: NatsServer) -> Iterator[Configure]:
    """Sets CACHES: ``configure(default={"MAX_BYTES": 1}, other={…})``, a bucket for each alias.

    A LOCATION among the options stands for another server.
    """
    buckets = f"test_{secrets.token_hex(4)}"

    def configure(**aliases: dict[str, Any]) -> None:
        settings.CACHES = {
            alias: {
                "BACKEND": "django_nats.cache.NatsCache",
                "LOCATION": options.pop("LOCATION", server.url),
                "OPTIONS": {"TOKEN": server.token, "BUCKET": f"{buckets}_{alias}", **options},
            }
            for alias, options in aliases.items()
        }

    yield configure
    for cache in nats_caches().values():
        if DEAD not in cache._config.connection.servers:
            api(cache, f"STREAM.DELETE.{cache._bucket.config.stream}")


def nats(*arguments: str) -> str:
    """What ``manage.py nats`` writes."""
    out = io.StringIO()
    call_command("nats", *arguments, stdout=out)
    return out.getvalue()


def failing_nats(*arguments: str) -> tuple[str, str]:
    """What ``manage.py nats`` writes, and the words of the error it ends with."""
    out = io.StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("nats", *arguments, stdout=out)
    return out.getvalue(), str(caught.value)


def stream(alias: str = "default") -> dict[str, Any]:
    """The server's own word about an alias's stream, an error if there is none."""
    cache = nats_caches()[alias]
    return api(cache, f"STREAM.INFO.{cache._bucket.config.stream}")


def make_stream(alias: str = "default", **changes: Any) -> None:
    """Make an alias's stream elsewhere than with django-nats, and otherwise."""
    cache = nats_caches()[alias]
    document = {**cache._bucket.config.stream_config(), **changes}
    answer = api(cache, f"STREAM.CREATE.{document['name']}", document)
    assert "error" not in answer, answer


def publish(cache: NatsCache, subject: str, payload: bytes) -> None:
    def steps() -> Steps[None]:
        yield cache._bucket.api_request(subject, payload)

    bridge.run(cache.session, steps())


# setup ---------------------------------------------------------------------------------------


def test_setup_creates_a_bucket_as_settings_say(configure: Configure) -> None:
    configure(default={"STORAGE": "file", "MAX_BYTES": "8MiB"})

    output = nats("setup", "--noinput")

    assert "  created\n" in output
    assert "max_bytes: 8388608" in output
    assert stream()["config"]["storage"] == "file"
    assert stream()["config"]["max_bytes"] == 8 * 1024 * 1024


def test_setup_of_a_bucket_that_is_right_does_nothing(configure: Configure) -> None:
    configure(default={"STORAGE": "file"})
    nats("setup")
    before = stream()

    assert "nothing to do" in nats("setup")
    assert stream()["config"] == before["config"]


@pytest.mark.parametrize("option", ["--plan", "--dry-run"])
def test_a_plan_creates_nothing(configure: Configure, option: str) -> None:
    configure(default={})

    assert "  would create\n" in nats("setup", option)
    assert stream()["error"]["err_code"] == 10059


def test_a_plan_updates_nothing(configure: Configure) -> None:
    configure(default={"MAX_BYTES": "4MiB"})
    make_stream(max_bytes=2 * 1024 * 1024)

    output = nats("setup", "--plan")

    assert "  would update\n    max_bytes: 2097152 → 4194304" in output
    assert stream()["config"]["max_bytes"] == 2 * 1024 * 1024


def test_setup_updates_what_differs_and_keeps_values(configure: Configure) -> None:
    configure(default={"MAX_BYTES": "4MiB", "EVICT": False, "DESCRIPTION": "pages"})
    caches["default"].set("key", "value")
    configure(default={"MAX_BYTES": "8MiB", "EVICT": True, "DESCRIPTION": "pages"})

    output = nats("setup")

    assert "  updated\n" in output
    assert "max_bytes: 4194304 → 8388608" in output
    assert "discard: 'new' → 'old'" in output
    assert "description" not in output
    assert stream()["config"]["max_bytes"] == 8388608
    assert stream()["config"]["discard"] == "old"
    assert caches["default"].get("key") == "value"


def test_an_update_leaves_alone_what_settings_do_not_know(configure: Configure) -> None:
    configure(default={})
    make_stream(metadata={"team": "web"}, description="old")

    nats("setup")

    assert stream()["config"]["metadata"]["team"] == "web"
    assert stream()["config"]["description"] == "Django cache"


def test_an_update_takes_away_what_settings_no_longer_ask_for(configure: Configure) -> None:
    configure(default={})
    make_stream(placement={"tags": ["ssd"]}, max_age=60 * 10**9)

    output = nats("setup")

    assert "placement: {'tags': ['ssd']} → None" in output
    assert "max_age: 60000000000 → 0" in output
    assert not stream()["config"].get("placement")
    assert stream()["config"]["max_age"] == 0
    assert "nothing to do" in nats("setup")


def test_a_history_that_holds_no_older_revision_is_switched_off(configure: Configure) -> None:
    configure(default={})
    make_stream(max_msgs_per_subject=5)

    assert "max_msgs_per_subject: 5 → 1" in nats("setup")
    assert stream()["config"]["max_msgs_per_subject"] == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"storage": "file"}, "storage: 'file' → 'memory'"),
        ({"max_bytes": 64 * 1024**2}, "max_bytes: 67108864 → 65536"),
        ({"max_msgs": 1000}, "max_msgs: 1000 → 2"),
        ({"max_msgs_per_subject": 5}, "max_msgs_per_subject: 5 → 1"),
        ({"retention": "interest"}, "retention: 'interest' → 'limits'"),
        ({"subjects": ["$KV.BUCKET.>", "orders.>"]}, "'orders.>'] → ['$KV."),
    ],
)
def test_setup_refuses_what_would_lose_data(
    configure: Configure, changes: dict[str, Any], reason: str
) -> None:
    configure(default={"MAX_BYTES": "64KiB", "MAX_ENTRIES": 2, "MAX_VALUE_SIZE": "32KiB"})
    cache = nats_caches()["default"]
    name = cache._bucket.config.name
    if "subjects" in changes:
        changes = {"subjects": [each.replace("BUCKET", name) for each in changes["subjects"]]}
    make_stream(**{"max_bytes": 64 * 1024**2, "max_msgs": 1000, "description": "old", **changes})
    for number in range(6):
        publish(cache, f"$KV.{name}.{number % 3}", b"x" * 25_000)
    before = stream()

    output, error = failing_nats("setup")

    refused = [line for line in output.splitlines() if "cannot be changed" in line]
    assert any(reason in line for line in refused)
    assert not any("description" in line for line in refused)
    assert "name another BUCKET" in output
    assert error == "Not set up: default."
    assert stream()["config"] == before["config"]
    assert stream()["state"]["messages"] == before["state"]["messages"]


def test_a_plan_of_what_would_be_refused_fails_too(configure: Configure) -> None:
    configure(default={})
    make_stream(storage="file")

    assert failing_nats("setup", "--plan")[1] == "Not set up: default."


def test_setup_of_one_alias_leaves_the_others(configure: Configure) -> None:
    configure(default={}, other={})

    nats("setup", "--alias", "other")

    assert "error" in stream("default")
    assert "config" in stream("other")


def test_setup_of_an_unknown_alias_names_those_there_are(configure: Configure) -> None:
    configure(default={}, other={})

    _, error = failing_nats("setup", "--alias", "othr")

    assert "othr" in error
    assert "default, other" in error


def test_aliases_that_share_a_bucket_are_set_up_as_one(configure: Configure) -> None:
    shared = f"test_{secrets.token_hex(4)}"
    configure(default={"BUCKET": shared}, other={"BUCKET": shared, "NAME": "other client"})

    assert nats("setup").count("create") == 1
    assert "default, other: bucket" in nats("setup")


def test_aliases_that_disagree_on_a_bucket_are_refused_by_name(configure: Configure) -> None:
    shared = f"test_{secrets.token_hex(4)}"
    configure(
        default={"BUCKET": shared}, other={"BUCKET": shared, "MAX_BYTES": "1MiB", "EVICT": False}
    )

    _, error = failing_nats("setup")

    assert 'CACHES["default"] and CACHES["other"]' in error
    assert "max_bytes -1 or 1048576" in error
    assert "error" in stream("default")


def test_a_server_that_is_away_does_not_keep_the_others_waiting(configure: Configure) -> None:
    configure(away={"LOCATION": DEAD}, default={})

    output, error = failing_nats("setup")

    assert f"failed: No connection to NATS at {DEAD}" in output
    assert error == "Not set up: away."
    assert "config" in stream("default")


def test_what_the_server_refuses_is_told_in_its_words(configure: Configure) -> None:
    configure(default={"REPLICAS": 3})

    output, error = failing_nats("setup")

    assert "replicas > 1 not supported in non-clustered mode" in output
    assert "created" not in output
    assert error == "Not set up: default."


@pytest.mark.parametrize("subcommand", ["setup", "status"])
def test_settings_without_a_nats_cache_are_an_error(settings: Any, subcommand: str) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}

    assert failing_nats(subcommand)[1].startswith("Nothing is kept on NATS: no alias")


def test_a_mistake_in_settings_is_an_error_of_the_command(settings: Any) -> None:
    options = {"REPLICA": 3}
    settings.CACHES = {"default": {"BACKEND": "django_nats.cache.NatsCache", "OPTIONS": options}}

    assert "unknown option 'REPLICA'" in failing_nats("status")[1]


# status --------------------------------------------------------------------------------------


def test_status_shows_server_and_bucket(configure: Configure, server: NatsServer) -> None:
    configure(default={"MAX_BYTES": "8MiB"})
    caches["default"].set("key", "value")

    output = nats("status")

    assert f"default: bucket {caches['default']._bucket.config.name} on {server.url}" in output
    assert "server   nats-server 2." in output
    assert "storage  memory, replicas: 1" in output
    assert "entries  1 without limit" in output
    assert f"bytes    {stream()['state']['bytes']} of at most 8,388,608" in output
    assert "values   up to 1,048,576 bytes each" in output
    assert "differs" not in output


def test_status_shows_what_a_near_cache_follows(configure: Configure) -> None:
    configure(default={"NEAR_CACHE": {"KEYS": ["flags:*", "config"]}})
    caches["default"].set("key", "value")
    bucket = caches["default"]._bucket.config.name
    follows = [f"$KV.{bucket}.{each}" for each in ("=.*.config", "=.*.flags.>", "=clear")]

    assert f"  near     copies of flags:*, config, by {', '.join(follows)}\n" in nats("status")

    (default,) = json.loads(nats("status", "--json"))["caches"]
    assert default["near_cache"] == ["flags:*", "config"]
    assert default["follows"] == follows


def test_status_shows_no_near_cache_where_there_is_none(configure: Configure) -> None:
    configure(default={})
    caches["default"].set("key", "value")

    assert "  near " not in nats("status")
    (default,) = json.loads(nats("status", "--json"))["caches"]
    assert (default["near_cache"], default["follows"]) == ([], [])


def test_status_of_a_bucket_that_is_absent_does_not_make_it(configure: Configure) -> None:
    configure(default={})

    assert "absent" in nats("status")
    assert stream()["error"]["err_code"] == 10059


def test_status_shows_in_what_a_bucket_differs(configure: Configure) -> None:
    configure(default={})
    make_stream(discard="new")

    output = nats("status")

    assert "differs  discard: 'new' on the server, 'old' in settings" in output
    assert "manage.py nats setup" in output


def test_status_for_programs(configure: Configure, server: NatsServer) -> None:
    configure(default={"MAX_ENTRIES": 10}, absent={})
    caches["default"].set("key", "value")

    default, absent = json.loads(nats("status", "--json"))["caches"]

    assert default["alias"] == "default"
    assert default["servers"] == server.url
    assert default["server"].startswith("nats-server 2.")
    assert 0 < default["rtt"] < 5
    assert default["exists"] is True
    assert (default["storage"], default["replicas"]) == ("memory", 1)
    assert (default["entries"], default["max_entries"]) == (1, 10)
    assert (default["bytes"], default["max_bytes"]) == (stream()["state"]["bytes"], None)
    assert default["max_value_size"] == 1024 * 1024
    assert default["differences"] == []
    assert (absent["alias"], absent["exists"], absent["error"]) == ("absent", False, None)


def test_status_of_a_server_that_is_away_fails(configure: Configure) -> None:
    configure(default={}, away={"LOCATION": DEAD})

    output, error = failing_nats("status", "--json")

    default, away = json.loads(output)["caches"]
    assert default["error"] is None
    assert away["error"].startswith(f"No connection to NATS at {DEAD}")
    assert error == "No answer for away."


# The command line ----------------------------------------------------------------------------


def manage(options: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"""
import sys
from django.conf import settings
settings.configure(
    SECRET_KEY="only-for-tests",
    INSTALLED_APPS=["django_nats"],
    CACHES={{"default": {{
        "BACKEND": "django_nats.cache.NatsCache", "LOCATION": {DEAD!r}, "OPTIONS": {options!r}
    }}}},
)
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("subcommand", ["setup", "status"])
def test_a_server_that_is_away_is_no_traceback(subcommand: str) -> None:
    done = manage({"STORAGE": "file"}, "nats", subcommand)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"No connection to NATS at {DEAD}" in done.stdout
    assert "No connection" not in done.stderr
    assert "CommandError: " in done.stderr


def test_a_server_that_is_away_is_said_once_by_the_checks() -> None:
    done = manage({"STORAGE": "file"}, "check", "--deploy", "--tag", "nats")

    assert (done.stdout + done.stderr).count("No connection") == 1


@pytest.mark.parametrize("subcommand", ["setup", "status"])
def test_a_mistake_in_settings_is_no_traceback(subcommand: str) -> None:
    done = manage({"REPLICA": 3}, "nats", subcommand)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "django_nats.E001" in done.stderr
    assert "unknown option 'REPLICA'" in done.stderr
