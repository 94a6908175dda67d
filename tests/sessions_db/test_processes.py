"""Processes that change one session at the same time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeCache

_ROOT = Path(__file__).parents[2]
_TIMES = 10
_NAMES = ("a", "b", "c")


@pytest.fixture
def database(tmp_path: Path) -> dict[str, Any]:
    """Return the settings of a database that processes can share."""
    if given := os.environ.get("SESSIONS_DATABASE"):
        return dict(json.loads(given))  # of another kind, for a trial by hand
    options = {"timeout": 60, "init_command": "PRAGMA synchronous=OFF"}
    file = str(tmp_path / "sessions.sqlite3")
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": file, "OPTIONS": options}


@pytest.mark.once
def test_processes_that_change_one_session_lose_no_change(
    use_cache: MakeCache, settings: Any, database: dict[str, Any]
) -> None:
    use_cache()
    shared = json.dumps({"CACHES": settings.CACHES, "DATABASES": {"default": database}})

    def start(*task: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.sessions_db.worker", shared, *task],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    created, errors = start("create").communicate()
    assert not errors
    key = created.strip()
    workers = [start("change", key, name, str(_TIMES)) for name in _NAMES]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("begin\n")
        worker.stdin.flush()
    assert [worker.communicate()[1] for worker in workers] == [""] * len(workers)
    expected: dict[str, Any] = {"old": 1}
    for name in _NAMES:
        expected |= {name: _TIMES, f"{name}:{_TIMES}": True}
    assert json.loads(start("show", key).communicate()[0]) == [expected, expected]
