"""Subinterpreters: "legacy" ones allow daemon threads, "isolated" ones do not."""

from __future__ import annotations

import sys

import pytest

from django_nats.devserver import NatsServer
from tests.support.scripts import Ended, run_script

legacy = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="a program of Python cannot end one with threads before 3.12"
)
isolated = pytest.mark.skipif(
    sys.version_info < (3, 13), reason="Django cannot be imported in an isolated one before 3.13"
)

# mod_wsgi creates "legacy" ones; concurrent.interpreters creates "isolated" ones.
_PRELUDE = """
import sys
def run(kind, code):
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
        interpreter = interpreters.create(isolated=kind == "isolated")
        interpreters.run_string(interpreter, _SET_UP + code)
    else:
        interpreter = interpreters.create(kind)
        failure = interpreters.exec(interpreter, _SET_UP + code)
        if failure is not None:
            print(failure)
    interpreters.destroy(interpreter)
    print("has ended", flush=True)
_SET_UP = f'''
import sys
sys.path[:] = {sys.path!r}
location, bucket, token = {sys.argv[1:]!r}
from django.conf import settings
settings.configure(
    SECRET_KEY="only-for-tests",
    NATS_COUNTERS={{"default": {{"LOCATION": location, "TOKEN": token, "DEADLINE": 60.0}}}},
)
import asyncio, logging
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message).60s")
from django_nats.cache import NatsCache
from django_nats.counters import counters
from django_nats.exceptions import BridgeMisuse, CounterUnavailable, NotSent
def make(**options):
    patient = {{"CONNECT_TIMEOUT": 20.0, "REQUEST_TIMEOUT": 20.0}}
    common = {{"BUCKET": bucket, "TOKEN": token, **patient}}
    return NatsCache(location, {{"OPTIONS": {{**common, **options}}}})
def refusal(call, *arguments):
    try:
        return call(*arguments)
    except BridgeMisuse as error:
        return f"{{type(error).__name__}}, {{isinstance(error, NotSent)}}"
'''
print("ready", flush=True)
sys.stdin.readline()
"""


def run(server: NatsServer, kind: str, code: str, loop: str = "uvloop") -> Ended:
    arguments = (server.url, "own", server.token)
    return run_script(f"run({kind!r}, {code!r})", *arguments, loop=loop, prelude=_PRELUDE)


@isolated
def test_calls_in_an_isolated_interpreter_raise_thread_refused(own_server: NatsServer) -> None:
    ended = run(
        own_server,
        "isolated",
        """
cache = make(NEAR_CACHE={"KEYS": ["*"]})
print(refusal(cache.get, "key"))
print(refusal(asyncio.run, cache.aget("key")))
print(refusal(counters.incr, "n"))
sys.stdout.flush()
""",
    )
    logged, *raised, end = ended.stdout.splitlines()
    assert logged.startswith("ERROR The background thread cannot be started"), ended
    assert raised == ["ThreadRefused, True"] * 3
    assert end == "has ended"
    assert (ended.status, ended.stderr) == (0, "")


@isolated
def test_calls_in_an_isolated_interpreter_return_defaults_under_fail_open(
    own_server: NatsServer,
) -> None:
    ended = run(
        own_server,
        "isolated",
        """
cache = make(FAIL_OPEN=True, NEAR_CACHE={"KEYS": ["*"]})
cache.set("key", 1)
print(cache.get("key", "default"), asyncio.run(cache.aget("key")), cache.get_many(["key"]))
print(cache.get_or_set("key", 2), cache.add("key", 3), list(cache.iter_keys("*")))
sys.stdout.flush()
""",
    )
    logged, *found = ended.stdout.splitlines()
    assert logged.startswith("ERROR The background thread cannot be started"), ended
    assert found == ["default None {}", "2 False []", "has ended"]
    assert (ended.status, ended.stderr) == (0, "")


@legacy
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_legacy_interpreter_uses_the_cache_and_exits(own_server: NatsServer, loop: str) -> None:
    ended = run(
        own_server,
        "legacy",
        """
from django_nats.counters import write_behind
write_behind._EXIT_TIMEOUT_S = 60.0
cache = make(NEAR_CACHE={"KEYS": ["*"]})
cache.set("key", 1)
print(cache.get("key"), asyncio.run(cache.aget("key")))
counters.incr_later("n", 5)  # its thread is waiting when the interpreter exits
sys.stdout.flush()
""",
        loop,
    )
    assert ended.stdout.splitlines() == ["1 1", "has ended"], ended
    assert (ended.status, ended.stderr) == (0, "")
    again = run(own_server, "legacy", 'print(counters.get_many(["n"])); sys.stdout.flush()')
    assert again.stdout.splitlines() == ["{'n': 5}", "has ended"]


@legacy
def test_a_legacy_interpreter_exits_after_its_write_behind_thread(own_server: NatsServer) -> None:
    ended = run(
        own_server,
        "legacy",
        """
import time
from django_nats.counters import flusher, write_behind
write_behind._EXIT_TIMEOUT_S = flusher._JOIN_TIMEOUT_S = 60.0
publish = flusher.Flusher._run
def publish_and_linger(self, *arguments):
    publish(self, *arguments)
    time.sleep(0.5)  # real time: the interpreter must not end before this thread
flusher.Flusher._run = publish_and_linger
counters.incr_later("n", 5)
sys.stdout.flush()
""",
    )
    assert (ended.status, ended.stdout, ended.stderr) == (0, "has ended", "")
