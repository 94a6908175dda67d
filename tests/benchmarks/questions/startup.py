"""What does the package add to the start of a process?

The time from the first import to the end of django.setup(), or to the answer to a first get, is
measured in new processes, alternately with the contestant and with LocMemCache, which is part of
Django. The figure is the difference between the shortest times. There is only one round, since the
shortest of many times does not depend on other work of the machine. Only the most different caches
take part.

Modules are loaded from compiled files, as in every process except the first: pip compiles the
packages that it installs, and otherwise only a checkout would be compiled while it is measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from ..contestants import ASYNCIO, DJANGO_REDIS, DJANGO_REDIS_CACHE, OURS, Contestant
from ..lab import ROOT, JobFailed, Lab
from ..results import Cell

NAME = "startup"
TITLE = "What does the package add to the start of a process?"
ONCE = True

_LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
_PROGRAM = """
import json, sys
from time import perf_counter
begun = perf_counter()
import django
from django.conf import settings
entry, apps, until = json.loads(sys.argv[1])
settings.configure(SECRET_KEY="benchmark", CACHES={"default": entry}, INSTALLED_APPS=apps)
django.setup()
from django.core.cache import caches
cache = caches["default"]
if until == "first get" and cache.get("absent") is not None:
    raise ValueError("A wrong result")
print(json.dumps({"ms": (perf_counter() - begun) * 1000, "modules": list(sys.modules)}))
"""


def cells(quick: bool) -> list[dict[str, Any]]:
    return [{"until": "setup"}, {"until": "first get"}]


def takes_part(contestant: Contestant, cell: Cell) -> bool:
    return contestant.name in (OURS, ASYNCIO, DJANGO_REDIS_CACHE, DJANGO_REDIS)


def measure(lab: Lab, contestant: Contestant, cell: Cell) -> dict[str, float]:
    entry = lab.entry(contestant)
    environment = lab.environment(contestant)
    ours = contestant.server == "nats"
    alone, added = [], []
    for _ in range(2 if lab.quick else 12):  # the first may compile
        alone.append(_start(_LOCMEM, [], environment, cell["until"])["ms"])
        apps = ["django_nats"] if ours else []
        started = _start(entry, apps, environment, cell["until"])
        if ours and cell["until"] == "setup" and "nats" in started["modules"]:
            raise JobFailed("django.setup() imports nats, which belongs to first use")
        added.append(started["ms"])
    # Other work of the machine can only add to the times.
    return {"ms": min(added) - min(alone)}


def _start(
    entry: dict[str, Any], apps: list[str], environment: dict[str, str], until: str
) -> dict[str, Any]:
    process = subprocess.run(
        [sys.executable, "-c", _PROGRAM, json.dumps([entry, apps, until])],
        cwd=ROOT,
        # Empty means unset: many containers set it.
        env={**os.environ, **environment, "PYTHONDONTWRITEBYTECODE": ""},
        stdout=subprocess.PIPE,
        check=False,
    )
    if process.returncode:
        raise JobFailed(f"A process that starts with {entry['BACKEND']} fails")
    figures: dict[str, Any] = json.loads(process.stdout)
    return figures
