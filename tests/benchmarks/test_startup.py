"""The startup benchmark measures imports, without compiling."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.questions import startup

BACKEND = "from django.core.cache.backends.dummy import DummyCache as Cache\n"


def test_modules_are_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "backend.py").write_text(BACKEND)
    entry = {"BACKEND": "backend.Cache"}
    assert "backend" in startup._start(entry, [], {}, "setup")["modules"]
    assert list(tmp_path.glob("__pycache__/backend.*.pyc"))
