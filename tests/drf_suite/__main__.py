"""``python -m tests.drf_suite [--fixed] [directory]``: DRF's tests of throttles on a NATS server.

The source distribution of the installed DRF is kept in the directory (default: build/drf).
With --fixed, the throttles use the algorithm "fixed", and not the default.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import django
from django.conf import settings
from django.test.runner import DiscoverRunner

from django_nats.client import process as client_process
from django_nats.devserver import NatsServer
from tests.support.source_distribution import tests_of


def configure(server: NatsServer) -> None:
    """Configure the settings that DRF's tests of throttles need, and counters on a server."""
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3"}},
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django_nats",
            "rest_framework",
        ],
        # Long timeouts, since a busy machine may be slow to answer.
        NATS_COUNTERS={
            "default": {
                "LOCATION": server.url,
                "TOKEN": server.token,
                "CONNECT_TIMEOUT": 30,
                "REQUEST_TIMEOUT": 10,
            }
        },
        SECRET_KEY="only-for-tests",
    )
    django.setup()


def main() -> int:
    """Run the tests. Return the number of failures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=Path("build/drf"))
    parser.add_argument("--fixed", action="store_true")
    arguments = parser.parse_args()
    tests = tests_of("djangorestframework", arguments.directory.absolute())
    sys.path.insert(0, str(tests))
    warnings.simplefilter("error", ResourceWarning)
    warnings.simplefilter("error", RuntimeWarning)
    with NatsServer() as server:
        configure(server)
        if arguments.fixed:
            from django_nats.contrib.rest_framework import SimpleRateThrottle

            SimpleRateThrottle.algorithm = "fixed"
        failures: int = DiscoverRunner().run_tests(["tests.drf_suite.suite"])
        client_process.close()
    return failures


if __name__ == "__main__":
    sys.exit(bool(main()))
