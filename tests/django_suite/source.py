"""Django's own tests, which are in its source distribution but not in its wheel."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import django


def tests_of_django(directory: Path) -> Path:
    """Return the tests directory of the installed release. Download it if it is missing."""
    release = f"django-{django.__version__}"
    tests = directory / release / "tests"
    if not tests.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        # Unpacked elsewhere and then moved, so that an interrupted run leaves no incomplete tests.
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            source_only = ["--no-binary", "django", f"django=={django.__version__}"]
            subprocess.run([*download, *source_only, "--dest", scratch], check=True)
            with tarfile.open(next(Path(scratch).glob("*.tar.gz"))) as archive:
                archive.extractall(scratch, filter="data")
            (Path(scratch) / release).rename(directory / release)
    return tests
