"""``manage.py nats`` in a process, with the arguments as a user types them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from django.core.management import load_command_class

DEAD = "nats://127.0.0.1:1"


def manage(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"""
import sys
from django.conf import settings
settings.configure(
    SECRET_KEY="only-for-tests",
    INSTALLED_APPS=["django_nats"],
    NATS_COUNTERS={{"default": {{"LOCATION": {DEAD!r}}}}},
)
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=850)


@pytest.mark.parametrize("subcommand", ["counters top", "counters show a", "status", "setup"])
def test_an_unreachable_server_is_reported_once_without_a_traceback(subcommand: str) -> None:
    done = manage("nats", *subcommand.split())

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert (done.stdout + done.stderr).count(f"No connection to NATS at {DEAD}") == 1


@pytest.mark.parametrize("arguments", [["counters"], ["counters", "tip"], ["counters", "show"]])
def test_an_incomplete_or_unknown_subcommand_is_a_usage_error(arguments: list[str]) -> None:
    done = manage("nats", *arguments)

    assert done.returncode == 2
    assert "usage: " in done.stderr


def test_settings_may_follow_the_subcommand() -> None:
    done = manage("nats", "status", "--settings", "project.settings", "--no-color")

    assert "unrecognized arguments" not in done.stderr
    assert "default: counter stream COUNTERS" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["-v", "0", "--traceback", "status"],
        ["status", "-v", "0", "--traceback"],
        ["-v", "0", "counters", "top", "--traceback"],
        ["--traceback", "counters", "top", "-v", "0"],
    ],
    ids=" ".join,
)
def test_common_options_may_come_before_or_after_the_subcommand(arguments: list[str]) -> None:
    parser = load_command_class("django_nats", "nats").create_parser("manage.py", "nats")

    options = parser.parse_args(arguments)

    assert (options.verbosity, options.traceback) == (0, True)
    assert parser.parse_args(arguments[-1:] if "status" in arguments[-1:] else ["status"]).verbosity
