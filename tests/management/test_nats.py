from __future__ import annotations

import secrets
import subprocess
import sys
from typing import Any

import pytest
from django.core.cache import caches

from django_nats.cache import nats_caches
from tests.management.buckets import DEAD, failing_nats, make_stream, nats, publish, stream
from tests.management.conftest import ConfigureCaches

pytestmark = pytest.mark.smoke


# setup ---------------------------------------------------------------------------------------


def test_setup_creates_a_bucket_as_settings_say(configure_caches: ConfigureCaches) -> None:
    configure_caches(default={"STORAGE": "file", "MAX_BYTES": "8MiB"})

    output = nats("setup", "--noinput")

    assert "  created\n" in output
    assert "max_bytes: 8388608" in output
    assert stream()["config"]["storage"] == "file"
    assert stream()["config"]["max_bytes"] == 8 * 1024 * 1024


def test_setup_changes_nothing_if_the_bucket_matches_settings(
    configure_caches: ConfigureCaches,
) -> None:
    configure_caches(default={"STORAGE": "file"})
    nats("setup")
    before = stream()

    assert "nothing to do" in nats("setup")
    assert stream()["config"] == before["config"]


@pytest.mark.parametrize("option", ["--plan", "--dry-run"])
def test_plan_creates_nothing(configure_caches: ConfigureCaches, option: str) -> None:
    configure_caches(default={})

    assert "  would create\n" in nats("setup", option)
    assert stream()["error"]["err_code"] == 10059


def test_plan_updates_nothing(configure_caches: ConfigureCaches) -> None:
    configure_caches(default={"MAX_BYTES": "4MiB"})
    make_stream(max_bytes=2 * 1024 * 1024)

    output = nats("setup", "--plan")

    assert "  would update\n    max_bytes: 2097152 → 4194304" in output
    assert stream()["config"]["max_bytes"] == 2 * 1024 * 1024


def test_setup_updates_the_bucket_and_keeps_values(configure_caches: ConfigureCaches) -> None:
    configure_caches(default={"MAX_BYTES": "4MiB", "EVICT": False, "DESCRIPTION": "pages"})
    caches["default"].set("key", "value")
    configure_caches(default={"MAX_BYTES": "8MiB", "EVICT": True, "DESCRIPTION": "pages"})

    output = nats("setup")

    assert "  updated\n" in output
    assert "max_bytes: 4194304 → 8388608" in output
    assert "discard: 'new' → 'old'" in output
    assert "description" not in output
    assert stream()["config"]["max_bytes"] == 8388608
    assert stream()["config"]["discard"] == "old"
    assert caches["default"].get("key") == "value"


def test_setup_keeps_values_that_settings_do_not_cover(configure_caches: ConfigureCaches) -> None:
    configure_caches(default={})
    make_stream(metadata={"team": "web"}, description="old")

    nats("setup")

    assert stream()["config"]["metadata"]["team"] == "web"
    assert stream()["config"]["description"] == "Django cache"


def test_setup_changes_metadata_and_republish(configure_caches: ConfigureCaches) -> None:
    configure_caches(default={"METADATA": {"team": "web", "cost": "7"}})
    make_stream(metadata={"team": "shop", "cost": "7", "tool": "x"})
    name = stream()["config"]["name"]

    output = nats("setup")

    assert "  updated\n    metadata: {'team': 'shop'} → {'team': 'web'}\n" in output
    assert "nothing to do" in nats("setup")
    metadata = stream()["config"]["metadata"]
    assert (metadata["team"], metadata["cost"], metadata["tool"]) == ("web", "7", "x")

    subjects = f"$KV.{name.removeprefix('KV_')}.>"
    configure_caches(default={"REPUBLISH": {"dest": f"changes.{name}.>"}})
    found = {"src": subjects, "dest": f"changes.{name}.>", "headers_only": False}
    assert f"    republish: None → {found}\n" in nats("setup")
    assert stream()["config"]["republish"]["dest"] == f"changes.{name}.>"
    assert "nothing to do" in nats("setup")

    configure_caches(default={})
    assert "    republish: {" in nats("setup")
    assert "republish" not in stream()["config"]
    assert stream()["config"]["metadata"]["team"] == "web"


def test_setup_removes_limits_that_settings_do_not_ask_for(
    configure_caches: ConfigureCaches,
) -> None:
    configure_caches(default={})
    make_stream(placement={"tags": ["ssd"]}, max_age=600 * 10**9)

    output = nats("setup")

    assert "placement: {'tags': ['ssd']} → None" in output
    assert "max_age: 10 min → none" in output
    assert not stream()["config"].get("placement")
    assert stream()["config"]["max_age"] == 0
    assert "nothing to do" in nats("setup")


def test_setup_switches_off_a_history_without_older_revisions(
    configure_caches: ConfigureCaches,
) -> None:
    configure_caches(default={})
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
        ({"retention": "workqueue"}, "retention: 'workqueue' → 'limits'"),
        ({"subjects": ["$KV.BUCKET.>", "orders.>"]}, "'orders.>'] → ['$KV."),
    ],
)
def test_setup_refuses_changes_that_would_lose_data(
    configure_caches: ConfigureCaches, changes: dict[str, Any], reason: str
) -> None:
    configure_caches(default={"MAX_BYTES": "64KiB", "MAX_ENTRIES": 2, "MAX_VALUE_SIZE": "32KiB"})
    cache = nats_caches()["default"]
    name = cache.bucket.config.name
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
    assert "choose another BUCKET" in output
    assert error == 'Not set up: CACHES["default"].'
    assert stream()["config"] == before["config"]
    assert stream()["state"]["messages"] == before["state"]["messages"]


def test_plan_fails_if_setup_would_refuse(configure_caches: ConfigureCaches) -> None:
    configure_caches(default={})
    make_stream(storage="file")

    assert failing_nats("setup", "--plan")[1] == 'Not set up: CACHES["default"].'


def test_setup_of_one_alias_does_not_create_the_others(configure_caches: ConfigureCaches) -> None:
    configure_caches(default={}, other={})

    nats("setup", "--alias", "other")

    assert "error" in stream("default")
    assert "config" in stream("other")


def test_setup_of_an_unknown_alias_names_the_known_ones(configure_caches: ConfigureCaches) -> None:
    configure_caches(default={}, other={})

    _, error = failing_nats("setup", "--alias", "othr")

    assert "othr" in error
    assert "default, other" in error


def test_setup_treats_aliases_of_one_bucket_as_one(configure_caches: ConfigureCaches) -> None:
    shared = f"test_{secrets.token_hex(4)}"
    configure_caches(default={"BUCKET": shared}, other={"BUCKET": shared, "NAME": "other client"})

    assert nats("setup").count("create") == 1
    assert "default, other: bucket" in nats("setup")


def test_setup_refuses_aliases_that_disagree_on_a_bucket(configure_caches: ConfigureCaches) -> None:
    shared = f"test_{secrets.token_hex(4)}"
    configure_caches(
        default={"BUCKET": shared}, other={"BUCKET": shared, "MAX_BYTES": "1MiB", "EVICT": False}
    )

    _, error = failing_nats("setup")

    assert 'CACHES["default"] and CACHES["other"]' in error
    assert "max_bytes -1 or 1048576" in error
    assert "error" in stream("default")


def test_setup_of_other_aliases_succeeds_if_one_server_is_unreachable(
    configure_caches: ConfigureCaches,
) -> None:
    configure_caches(away={"LOCATION": DEAD}, default={})

    output, error = failing_nats("setup")

    assert f"failed: No connection to NATS at {DEAD}" in output
    assert error == 'Not set up: CACHES["away"].'
    assert "config" in stream("default")


def test_setup_prints_the_servers_reason_for_a_refusal(configure_caches: ConfigureCaches) -> None:
    configure_caches(default={"REPLICAS": 3})

    output, error = failing_nats("setup")

    assert "replicas > 1 not supported in non-clustered mode" in output
    assert "  created" not in output
    assert error == 'Not set up: CACHES["default"].'


@pytest.mark.parametrize("subcommand", ["setup", "status"])
def test_settings_without_a_nats_cache_are_an_error(settings: Any, subcommand: str) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}

    assert failing_nats(subcommand)[1].startswith("Nothing is kept on NATS: no alias")


def test_a_mistake_in_settings_is_a_command_error(settings: Any) -> None:
    options = {"REPLICA": 3}
    settings.CACHES = {"default": {"BACKEND": "django_nats.cache.NatsCache", "OPTIONS": options}}

    assert "unknown option 'REPLICA'" in failing_nats("status")[1]


def test_verbosity_0_prints_nothing(configure_caches: ConfigureCaches) -> None:
    configure_caches(default={"STORAGE": "file"})

    assert nats("setup", "-v", "0") == ""
    assert nats("setup", "--plan", "--verbosity", "0") == ""
    assert stream()["config"]["storage"] == "file"
    assert "storage  file" in nats("status", "-v", "0")


def test_verbosity_0_leaves_the_reason_of_a_failure_to_the_error(
    configure_caches: ConfigureCaches,
) -> None:
    configure_caches(default={}, away={"LOCATION": DEAD})

    output, error = failing_nats("setup", "-v", "0")

    assert output == ""
    assert error.startswith(f'Not set up: CACHES["away"] (No connection to NATS at {DEAD}')


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
    return subprocess.run(command, capture_output=True, text=True, timeout=850)


@pytest.mark.parametrize("subcommand", ["setup", "status"])
def test_an_unreachable_server_is_reported_without_a_traceback(subcommand: str) -> None:
    done = manage({"STORAGE": "file"}, "nats", subcommand)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"No connection to NATS at {DEAD}" in done.stdout
    assert "No connection" not in done.stderr
    assert "CommandError: " in done.stderr


def test_the_checks_report_an_unreachable_server_once() -> None:
    done = manage({"STORAGE": "file"}, "check", "--deploy", "--tag", "nats")

    assert (done.stdout + done.stderr).count("No connection") == 1


@pytest.mark.parametrize("subcommand", ["setup", "status"])
def test_a_mistake_in_settings_is_reported_without_a_traceback(subcommand: str) -> None:
    done = manage({"REPLICA": 3}, "nats", subcommand)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "django_nats.E001" in done.stderr
    assert "unknown option 'REPLICA'" in done.stderr
