"""``python -m tests.django_suite [--near-cache] [directory]``: Django's own tests on a NATS server.

The source distribution of the installed Django is kept in the directory (default: build/django).
With --near-cache, the process keeps copies of all keys, and of the fact that a key has no value.
"""

from __future__ import annotations

import argparse
import sys
import unittest
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import django
from django.conf import settings
from django.test.runner import DiscoverRunner

from django_nats.client import process as client_process
from django_nats.devserver import NatsServer
from tests.support.source_distribution import tests_of

_SUITES = ["tests.django_suite.suite", "tests.django_suite.sessions"]
CONTRIB_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sites",
    "django.contrib.sessions",
    "django.contrib.messages",
]


class Runner(DiscoverRunner):
    """Django's test runner, but a skipped test is a failure unless it is in EXCUSED."""

    def suite_result(
        self, suite: unittest.TestSuite, result: unittest.TextTestResult, **kwargs: object
    ) -> int:
        from . import sessions, suite

        reasons = {*suite.EXCUSED.values(), *sessions.EXCUSED.values()}
        unexcused = 0
        for test, why in result.skipped:
            excused = why in reasons
            unexcused += not excused
            print(f"{'Excused' if excused else 'NOT EXCUSED'}: {test.id()}: {why}")
        failures: int = super().suite_result(suite, result, **kwargs)
        return failures + unexcused


def configure(server: NatsServer, tests: Path, options: dict[str, Any]) -> None:
    """Configure the settings of Django's own test run, with NATS as the default cache."""
    settings.configure(
        CACHES={
            "default": {
                "BACKEND": "django_nats.cache.NatsCache",
                "LOCATION": server.url,
                "OPTIONS": {"TOKEN": server.token, **options},
            }
        },
        DATABASES={
            alias: {"ENGINE": "django.db.backends.sqlite3"} for alias in ("default", "other")
        },
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        INSTALLED_APPS=[*CONTRIB_APPS, "django_nats", "cache", "sessions_tests"],
        LANGUAGE_CODE="en",
        MIGRATION_MODULES=dict.fromkeys(("auth", "contenttypes", "sessions", "sites")),
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        ROOT_URLCONF="urls",
        SECRET_KEY="only-for-tests",
        SITE_ID=1,
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "DIRS": [tests / "templates"],
                "APP_DIRS": True,
            }
        ],
        USE_TZ=False,
    )
    django.setup()


def main() -> int:
    """Run the tests. Return the number of failures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=Path("build/django"))
    parser.add_argument("--near-cache", action="store_true")
    arguments = parser.parse_args()
    # Long timeouts, since a busy machine may be slow to answer.
    options: dict[str, Any] = {"CONNECT_TIMEOUT": 30, "REQUEST_TIMEOUT": 30}
    if arguments.near_cache:
        options["NEAR_CACHE"] = {"MISSES": True}
    tests = tests_of("django", arguments.directory.absolute())
    sys.path.insert(0, str(tests))
    warnings.simplefilter("error", ResourceWarning)
    warnings.simplefilter("error", RuntimeWarning)
    with NatsServer() as server:
        configure(server, tests, options)
        from .backend import in_place_of_locmem

        with mock.patch(
            "django.core.cache.backends.locmem.LocMemCache", in_place_of_locmem(server, options)
        ):
            failures: int = Runner().run_tests(_SUITES)
        client_process.close()
    return failures


if __name__ == "__main__":
    sys.exit(bool(main()))
