"""The conditions of a run: versions, the machine, and its load."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import django

from .servers import Server

_PACKAGES = (
    *("django-nats", "nats-py", "uvloop", "redis", "hiredis", "django-redis"),
    *("valkey", "libvalkey", "django-valkey", "django-vcache", "django-cachex"),
    *("django-ratelimit", "djangorestframework", "limits"),
    *("pymemcache", "pylibmc", "gunicorn", "granian"),
)


def conditions(servers: Iterable[Server], *, quick: bool, rounds: int) -> dict[str, Any]:
    versions = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "django": django.get_version(),
        "cores": os.cpu_count(),
        "cpu": _processor(),
        "versions": versions | {f"{each.name} (server)": each.version for each in servers},
        "uvloop": versions.get("uvloop"),
        "quick": quick,
        "rounds": rounds,
        "load": os.getloadavg()[0],
    }


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
