"""Which test run this process belongs to, if any: embedded servers are private to it.

A test run here is what needs an empty cache: one process of a test runner. The workers of
``manage.py test --parallel`` and of pytest-xdist are one each. The processes that a test starts
belong to the run of that test.
"""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path

VARIABLE = "DJANGO_NATS_TEST_RUN"
"""The environment variable that tells the processes started by a test which run they belong to."""

_MANAGERS = (
    "manage.py",
    "django-admin",
    "django-admin.py",
    "django-admin.exe",
    "django_test_manage.py",  # PyCharm's
)

_under_pytest = False
_runs: dict[int, str] = {}
"""The runs that this process has begun, by the number of Django's parallel worker, or 0.

A forked worker inherits the run of its parent under 0, and begins its own.
"""


def begin() -> None:
    """Note that this process is one of pytest's."""
    global _under_pytest
    _under_pytest = True
    current()


def current() -> str | None:
    """Return the test run of this process, or None if it runs no tests and no test started it.

    A test runner's process begins a run when this is called first. Call it before each use of a
    server, since Django sets up its test environment after it has loaded the project.
    """
    started_by_a_test = os.environ.get(VARIABLE)
    if not _runs_tests():
        if started_by_a_test is None or started_by_a_test not in _runs.values():
            return started_by_a_test
        # Django's test environment was torn down, as in an interactive shell.
        with suppress(KeyError):  # another thread may have done so
            del os.environ[VARIABLE]
        _runs.clear()
        return None
    worker = getattr(sys.modules.get("django.test.runner"), "_worker_id", 0)
    if (known := _runs.get(worker)) is not None:
        return known
    if not worker and started_by_a_test and _is_spawned():
        return started_by_a_test
    run = os.environ[VARIABLE] = _runs.setdefault(worker, secrets.token_hex(12))
    return run


def _runs_tests() -> bool:
    if _under_pytest or _is_test_command():
        return True
    utils = sys.modules.get("django.test.utils")
    return hasattr(getattr(utils, "_TestState", None), "saved_data")


def _is_spawned() -> bool:
    """Return True in a child that a test has made with multiprocessing.

    It has the command line of its parent, and so looks like a test runner.
    """
    module = sys.modules.get("multiprocessing.process")
    return module is not None and module.parent_process() is not None


def _is_test_command() -> bool:
    """Return True in ``manage.py test`` and its spawned workers, from their start.

    Django's test environment is set up later: the project may use its caches while it is loaded.
    ``manage.py testserver`` sets up none, but its rows are those of a test database.
    """
    arguments: list[str] = getattr(sys, "argv", [])  # an embedding program may have none
    if arguments[1:2] not in (["test"], ["testserver"]):
        return False
    program = Path(arguments[0])
    return program.name in _MANAGERS or program.parts[-2:] == ("django", "__main__.py")
