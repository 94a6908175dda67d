"""Separate programs, for tests of a fork, an exit or a signal."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

_PRELUDE = """
import sys
from django.conf import settings
settings.configure(SECRET_KEY="only-for-tests")
from django_nats.cache import NatsCache
cache = NatsCache(
    sys.argv[1],
    {
        "OPTIONS": {
            "BUCKET": sys.argv[2],
            "TOKEN": sys.argv[3],
            "CONNECT_TIMEOUT": 3000.0,
            "REQUEST_TIMEOUT": 3000.0,
        }
    },
)
"""
# Background jobs of a shell ignore SIGINT, and so do the processes they start.
_CONTROL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
FORK = """
import os, signal, threading
signal.alarm(550)  # ends the program if it hangs

def fork(child):
    pid = os.fork()
    if not pid:
        child()
        sys.exit()  # an orderly exit, with all atexit functions
    return pid

def succeeded(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

def go():
    print("ready", flush=True)
    sys.stdin.readline()
"""
"""What a program needs to fork."""
PATIENCE = 600
"""Seconds after which a program counts as hung. Tests do not assert that programs are fast."""
# Python 3.12 warns of every fork of a process with threads, as gunicorn does it.
_FORKING = "ignore:This process:DeprecationWarning"


class Ended(NamedTuple):
    """How a program ended, and the seconds since it printed "ready", for a lower bound only."""

    status: int
    stdout: str
    stderr: str
    seconds: float


def run_script(
    code: str,
    *arguments: str,
    loop: str = "uvloop",
    prelude: str = _PRELUDE,
    when_ready: Callable[[subprocess.Popen[str]], None] = lambda process: None,
) -> Ended:
    """Run a program that can use ``cache``. Its arguments are location, bucket and token.

    It prints "ready" and waits for a line on stdin. ``when_ready`` is called before that line is
    sent. Requests of ``cache`` do not time out within PATIENCE, so that a program that waits for a
    timeout counts as hung.
    """
    with subprocess.Popen(
        [sys.executable, "-W", _FORKING, "-c", _CONTROL_C + prelude + code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DJANGO_NATS_LOOP": loop, "PYTHONFAULTHANDLER": "1"},
    ) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first == "ready\n", first + process.communicate(timeout=PATIENCE)[1]
            when_ready(process)
            started = time.monotonic()
            stdout, stderr = process.communicate("go\n", timeout=PATIENCE)
        finally:
            process.kill()
    return Ended(process.returncode, stdout.strip(), stderr, time.monotonic() - started)
