"""The process in which a contestant works, so that none weighs on another.

    python -m tests.benchmarks.worker '{"BACKEND": …}'

with an entry of CACHES. Reads one job a line on stdin, ``{"function": "module:name",
"arguments": {…}}``, calls the function with the cache and the arguments, and answers one line on
stdout: ``{"result": {…}}``, or ``{"error": "…"}`` with a traceback.
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
    # Django must find no DEBUG, no logging and no middleware: only the cache is measured.
    settings.configure(
        SECRET_KEY="benchmark",
        CACHES={"default": entry},
        # Of those contestants that are counters; the others do not look at it.
        NATS_COUNTERS={"default": {"LOCATION": entry.get("LOCATION"), **entry.get("OPTIONS", {})}},
        LOGGING_CONFIG=None,
    )
    django.setup()


def perform(job: dict[str, Any]) -> dict[str, Any]:
    from django.core.cache import caches

    module, _, name = job["function"].partition(":")
    function = getattr(import_module(module), name)
    cache = caches["default"]  # not the proxy, whose look-up would count
    gc.collect()
    return {"result": function(cache, **job["arguments"])}


def try_out(cache: Any) -> dict[str, Any]:
    """Store something and ask for it. Whether it comes back is for the questions to judge."""
    cache.set("tried", "1", TIMEOUT)  # which all of them can store
    cache.get("tried")
    return {}


def main() -> None:
    # Ctrl-C reaches the whole group; the lab ends its workers, or their stdin does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a driver or a library prints must not come between the answers.
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
