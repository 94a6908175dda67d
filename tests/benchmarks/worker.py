"""The process of one contestant, which keeps contestants from affecting each other.

    python -m tests.benchmarks.worker '{"BACKEND": …}'

The argument is an entry of CACHES. The process reads one job per line from stdin, ``{"function":
"module:name", "arguments": {…}}``, calls the function with the cache and the arguments, and writes
one line to stdout: ``{"result": {…}}``, or ``{"error": "…"}`` with a traceback.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from importlib import import_module
from typing import Any

import django
from django.conf import settings

from .measuring import TIMEOUT


def configure(entry: dict[str, Any]) -> None:
    # No DEBUG, no logging and no middleware, since only the cache is measured.
    settings.configure(
        SECRET_KEY="benchmark",
        CACHES={"default": entry},
        # For the contestants that are counters. The others do not read it.
        NATS_COUNTERS={"default": {"LOCATION": entry.get("LOCATION"), **entry.get("OPTIONS", {})}},
        LOGGING_CONFIG=None,
    )
    django.setup()


def perform(job: dict[str, Any]) -> dict[str, Any]:
    from django.core.cache import caches

    module, _, name = job["function"].partition(":")
    function = getattr(import_module(module), name)
    cache = caches["default"]  # not the proxy, whose lookup would be measured too
    gc.collect()
    return {"result": function(cache, **job["arguments"])}


def try_out(cache: Any) -> dict[str, Any]:
    """Store a value and read it. Whether the result is correct is checked by the questions."""
    cache.set("tried", "1", TIMEOUT)  # a value that every contestant can store
    cache.get("tried")
    return {}


def main() -> None:
    # Ctrl-C reaches the whole process group. The lab ends its workers, or closes their stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Output of drivers and libraries goes to stderr, so that it cannot mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    configure(json.loads(sys.argv[1]))
    for line in sys.stdin:
        try:
            answer = perform(json.loads(line))
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
