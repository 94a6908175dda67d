"""Where Django's own tests come from: its source distribution, which wheels leave them out of."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import django


def tests_of_django(directory: Path) -> Path:
    """The tests directory of the installed Django's release, downloaded if it is not there yet."""
    release = f"django-{django.__version__}"
    tests = directory / release / "tests"
    if not tests.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        # Beside its place, then moved there: an interrupted run leaves nothing half unpacked.
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            source_only = ["--no-binary", "django", f"django=={django.__version__}"]
            subprocess.run([*download, *source_only, "--dest", scratch], check=True)
            with tarfile.open(next(Path(scratch).glob("*.tar.gz"))) as archive:
                archive.extractall(scratch, filter="data")
            (Path(scratch) / release).rename(directory / release)
    return tests
