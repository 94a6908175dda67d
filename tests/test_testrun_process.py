"""What counts as a test run, and what changes with it in one process."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from django_nats import testrun
from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.client.transport.config import ConnectionConfig
from django_nats.client.transport.session import Session
from django_nats.conf.caches import cache_config
from django_nats.conf.counters import counter_settings


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["manage.py", "test"], True),
        (["/srv/shop/manage.py", "test", "blog", "--parallel"], True),
        (["/usr/bin/django-admin", "test"], True),
        (["django_test_manage.py", "test", "blog"], True),
        (["/lib/django/__main__.py", "test"], True),
        (["manage.py", "testserver", "articles.json"], True),
        (["manage.py", "runserver"], False),
        (["manage.py", "runserver", "test"], False),
        (["manage.py"], False),
        (["/usr/bin/gunicorn", "test"], False),
        (["/lib/gunicorn/__main__.py", "test"], False),
        ([""], False),
        ([], False),
    ],
)
def test_only_the_test_command_counts_as_a_test_run(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: bool
) -> None:
    monkeypatch.setattr(sys, "argv", arguments)

    assert testrun._is_test_command() is expected


@pytest.fixture
def in_tests(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Return a function that says whether this process runs tests of a project."""
    monkeypatch.setattr(testrun, "_runs", {})

    def say(running: bool) -> None:
        monkeypatch.setattr(testrun, "_runs_tests", lambda: running)

    say(True)
    return say


def test_servers_of_tests_are_private_whatever_the_options_say(
    in_tests: Callable[[bool], None], settings: object, tmp_path: Path
) -> None:
    entries = {
        "default": {"LOCATION": "embedded"},
        "allowed": {"LOCATION": "embedded", "ALLOW_EMBEDDED": True},
        "elsewhere": {"LOCATION": "embedded", "EMBEDDED_DIR": tmp_path},
    }
    settings.NATS_COUNTERS = entries  # type: ignore[attr-defined]
    connections = {alias: counter_settings(alias).connection for alias in entries}
    cache = cache_config("embedded", {"OPTIONS": {}}).connection

    assert connections["default"] == connections["allowed"] == cache
    assert connections["elsewhere"] != connections["default"]
    for each in connections.values():
        assert Path(each.embedded or "").parent == Path(tempfile.gettempdir())


def test_the_environment_tells_of_a_run_only_while_it_lasts(
    in_tests: Callable[[bool], None],
) -> None:
    run = testrun.current()
    assert os.environ[testrun.VARIABLE] == run
    assert testrun.current() == run

    in_tests(False)

    assert testrun.current() is None
    assert testrun.VARIABLE not in os.environ


def test_no_thread_uses_the_server_of_before_while_another_one_changes_to_that_of_the_run(
    in_tests: Callable[[bool], None], settings: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DEBUG = True  # type: ignore[attr-defined]
    in_tests(False)
    cache = NatsCache("embedded", {})
    before = cache.session
    in_tests(True)
    seen = []
    real = process.session

    def session(config: ConnectionConfig) -> Session:
        monkeypatch.setattr(process, "session", real)
        seen.append(cache.session)  # as another thread may do at this moment
        return real(config)

    monkeypatch.setattr(process, "session", session)

    assert cache.session is not before
    assert seen == [cache.session]


def test_several_threads_may_notice_the_end_of_a_run(
    in_tests: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    testrun.current()

    def another_thread_is_first() -> bool:
        os.environ.pop(testrun.VARIABLE)
        return False

    monkeypatch.setattr(testrun, "_runs_tests", another_thread_is_first)

    assert testrun.current() is None


def test_a_process_that_a_test_has_started_belongs_to_its_run(
    in_tests: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_tests(False)
    monkeypatch.setenv(testrun.VARIABLE, "of the parent")
    assert testrun.current() == "of the parent"

    in_tests(True)  # it runs tests of its own

    assert testrun.current() not in (None, "of the parent")
    monkeypatch.delenv(testrun.VARIABLE)
