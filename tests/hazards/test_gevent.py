"""Under gevent's patched threads the bridge cannot run, and says so instead of hanging."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from django_nats.devserver import NatsServer
from tests.support.scripts import run_script

pytestmark = pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed")

_PATCHED = """
from gevent import monkey
monkey.patch_all({arguments})
import sys, time
from django.conf import settings
settings.configure(SECRET_KEY="only-for-tests")
from django_nats.cache import NatsCache
cache = NatsCache(sys.argv[1], {{"OPTIONS": {{"BUCKET": sys.argv[2], "TOKEN": sys.argv[3]}}}})
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("arguments", ["", "thread=False", "select=False"])
def test_a_clear_error_every_time(own_server: NatsServer, arguments: str) -> None:
    ended = run_script(
        """
started = time.monotonic()
for _ in range(3):
    try:
        cache.get("key")
    except Exception as error:
        print(type(error).__name__, "thread=False" in str(error))
print(time.monotonic() - started < 1)
""",
        *(own_server.url, "own", own_server.token),
        prelude=_PATCHED.format(arguments=arguments),
    )
    assert ended.stdout.splitlines() == ["BridgeMisuse True"] * 3 + ["True"], ended
    assert (ended.status, ended.stderr) == (0, "")


def test_threads_that_are_not_patched_are_well(own_server: NatsServer) -> None:
    ended = run_script(
        'cache.set("key", 1); print(cache.get("key"))',
        *(own_server.url, "own", own_server.token),
        prelude=_PATCHED.format(arguments="thread=False, select=False, signal=False"),
    )
    assert (ended.status, ended.stdout, ended.stderr) == (0, "1", "")
