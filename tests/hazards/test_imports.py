"""Importing, setting up and checking a project opens no connection; the first operation does."""

from __future__ import annotations

import pytest

from django_nats.devserver import NatsServer
from tests.support.cluster import connections
from tests.support.scripts import run_script

_PROJECT = """
import sys, threading
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="only-for-tests",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth",
                    "django.contrib.sessions", "django_nats"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    CACHES={"default": {"BACKEND": "django_nats.cache.NatsCache", "LOCATION": sys.argv[1],
                        "OPTIONS": {"BUCKET": sys.argv[2], "TOKEN": sys.argv[3],
                                    "CONNECT_TIMEOUT": 30.0, "REQUEST_TIMEOUT": 30.0}}},
)
django.setup()
from django.core.cache import cache
from django.core.management import call_command
cache.key_prefix  # makes the backend
"""
_REPORT = """
heavy = [name for name in ("nats", "uvloop", "lz4", "zstandard", "msgpack") if name in sys.modules]
print("ready", flush=True)
sys.stdin.readline()
print(heavy, threading.active_count())
"""


@pytest.mark.parametrize(
    "command", ["", 'call_command("check")\n', 'call_command("migrate", verbosity=0)\n']
)
def test_management_commands_open_no_connection_and_start_no_thread(
    own_server: NatsServer, command: str
) -> None:
    counted: list[int] = []
    ended = run_script(
        command + _REPORT,
        *(own_server.url, "own", own_server.token),
        prelude=_PROJECT,
        when_ready=lambda _: counted.append(connections(own_server)),
    )
    assert (ended.status, ended.stdout.splitlines()[-1]) == (0, "[] 1"), ended
    assert counted == [0]


def test_the_first_operation_opens_a_connection(own_server: NatsServer) -> None:
    """Show that the test above can fail."""
    counted: list[int] = []
    ended = run_script(
        'cache.set("key", 1)\n' + _REPORT,
        *(own_server.url, "own", own_server.token),
        prelude=_PROJECT,
        when_ready=lambda _: counted.append(connections(own_server)),
    )
    assert "'nats'" in ended.stdout
    assert ended.stdout.endswith(" 2")
    assert counted == [1]


_SETUP = """
import sys
import django
from django.apps import AppConfig
from django.conf import settings
from django.core.cache import caches
settings.configure(
    SECRET_KEY="only-for-tests",
    CACHES={
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "nats": {"BACKEND": "django_nats.cache.NatsCache", "LOCATION": "nats://127.0.0.1:1"},
    },
)
django.setup()
caches["default"]
before = set(sys.modules)
AppConfig.create("django_nats").ready()
caches["nats"]
added = set(sys.modules) - before
print("ready", flush=True)
sys.stdin.readline()
parts = {"counters", "devserver", "nearcache", "management", "templatetags", "copies", "turns",
         "feed", "watch", "mailbox"}
print(
    sorted(name for name in added if name.split(".")[0] not in ("django_nats", "__future__")),
    sorted(parts & {part for name in added for part in name.split(".")}),
    "django_nats.cache" in added,
)
"""


def test_setup_imports_only_the_cache_part_of_the_package() -> None:
    """Modules that Django's own cache imports do not count; others would slow down each start."""
    ended = run_script("", prelude=_SETUP)
    assert ended.stdout == "[] [] True", ended
