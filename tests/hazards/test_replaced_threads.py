"""Calls raise BridgeMisuse instead of hanging if a library has replaced Python's threads."""

from __future__ import annotations

import _thread

import pytest

from django_nats.client.transport import loop as loop_module
from django_nats.devserver import NatsServer
from tests.support.scripts import Ended, run_script

_PATCH = {
    "gevent": """
from gevent import monkey
def patch(**arguments):
    monkey.patch_all(**arguments)
""",
    "eventlet": """
import warnings
def patch(**arguments):
    import eventlet
    eventlet.monkey_patch(**arguments)
warnings.simplefilter("ignore")  # eventlet warns that it is deprecated
""",
}
_PRELUDE = """
import sys
from django.conf import settings
settings.configure(
    SECRET_KEY="only-for-tests",
    NATS_COUNTERS={"default": {"LOCATION": sys.argv[1], "TOKEN": sys.argv[3]}},
)
from django_nats.cache import NatsCache
def make(location=sys.argv[1], **options):
    patient = {"CONNECT_TIMEOUT": 20.0, "REQUEST_TIMEOUT": 20.0}
    common = {"BUCKET": sys.argv[2], "TOKEN": sys.argv[3], **patient}
    return NatsCache(location, {"OPTIONS": {**common, **options}})
cache = make()
def refusal(call, *arguments):
    try:
        return call(*arguments)
    except Exception as error:
        return f"{type(error).__name__}, {'thread=False' in str(error)}"
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(params=sorted(_PATCH))
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(
    server: NatsServer, library: str, code: str, *, loop: str = "uvloop", first: str = ""
) -> Ended:
    """Run a program that can call patch(). The code in ``first`` runs before the imports."""
    prelude = _PATCH[library] + first + _PRELUDE
    return run_script(code, server.url, "own", server.token, loop=loop, prelude=prelude)


@pytest.mark.parametrize("arguments", ["", "thread=False", "select=False"])
def test_every_operation_raises_bridge_misuse(
    own_server: NatsServer, library: str, arguments: str
) -> None:
    ended = run(
        own_server,
        library,
        """
from django_nats.counters import counters
for _ in range(2):
    print(refusal(cache.get, "key"))
print(refusal(counters.incr, "n"))
print(refusal(counters.incr_later, "n"))
# FAIL_OPEN does not hide it: it is a mistake in the deployment, not an outage.
print(refusal(make(FAIL_OPEN=True).get, "key"))
""",
        first=f"patch({arguments})\n",
    )
    assert ended.stdout.splitlines() == ["BridgeMisuse, True"] * 5, ended
    assert (ended.status, ended.stderr) == (0, "")


def test_threads_replaced_after_the_import_are_refused(
    own_server: NatsServer, library: str
) -> None:
    ended = run(own_server, library, 'patch(); print(refusal(cache.get, "key"))')
    assert ended.stdout == "BridgeMisuse, True", ended
    assert ended.status == 0


def test_a_background_thread_started_before_patching_goes_on(
    own_server: NatsServer, library: str
) -> None:
    ended = run(
        own_server,
        library,
        """
cache.set("key", 1)
patch()
cache.set("key", 2)
print(cache.get("key"))
# Looking up a host name needs another thread, so it is refused.
print(refusal(make(sys.argv[1].replace("127.0.0.1", "localhost")).get, "key"))
print(cache.get("key"))
""",
        loop="asyncio",
    )
    assert ended.stdout.splitlines() == ["2", "NotSent, True", "2"], ended
    assert ended.status == 0


def test_threads_that_are_not_replaced_work(
    own_server: NatsServer, library: str, loop: str
) -> None:
    quiet = ", signal=False" if library == "gevent" else ""
    ended = run(
        own_server,
        library,
        'cache.set("key", 1); print(cache.get("key"))',
        loop=loop,
        first=f"patch(thread=False, select=False{quiet})\n",
    )
    assert (ended.status, ended.stdout, ended.stderr) == (0, "1", "")


def test_a_start_function_wrapped_by_a_debugger_is_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = _thread.start_new_thread

    def traced(*args: object) -> int:
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(_thread, "start_new_thread", traced)
    loop_module.refuse_replaced_threads()
