"""Other processes that use a cache's bucket."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from django_nats.cache import NatsCache
from django_nats.devserver import NatsServer
from tests.conftest import PATIENT
from tests.support.scripts import PATIENCE

_PRELUDE = """
import json, sys
from django.conf import settings
settings.configure(SECRET_KEY="only-for-tests")
from django_nats.cache import NatsCache
cache = NatsCache(*json.loads(sys.argv[1]))
cache.get("warm-up")
print("ready", flush=True)
sys.stdin.readline()
"""


def run_in_processes(
    server: NatsServer,
    cache: NatsCache,
    code: str,
    *,
    count: int = 1,
    before: str = "",
) -> list[str]:
    """Run code in several processes at the same time, and return what each prints.

    The code can use ``cache``, a cache on the same bucket. ``before`` is code that runs before
    anything is imported.
    """
    options = {"BUCKET": cache.bucket.config.name, "TOKEN": server.token, **PATIENT}
    arguments = json.dumps([server.url, {"OPTIONS": options}])
    command = [sys.executable, "-c", before + _PRELUDE + code, arguments]
    return [output.strip() for output in run_together(command, count)]


def run_together(command: Sequence[str], count: int) -> list[str]:
    """Run a program in several processes, and return what each prints after "ready".

    Each prints "ready" and waits for a line on stdin, which is sent to all at the same time.
    """
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0] * count
    return outputs
