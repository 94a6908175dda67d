"""The tests of other packages, which are in their source distributions but not in their wheels."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path


def tests_of(package: str, directory: Path) -> Path:
    """Return the tests of the installed release of a package. Download them if they are missing."""
    release = f"{package}-{version(package)}"
    tests = directory / release / "tests"
    if not tests.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        # Unpacked elsewhere and then moved, so that an interrupted run leaves no incomplete tests.
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            source_only = ["--no-binary", package, f"{package}=={version(package)}"]
            subprocess.run([*download, *source_only, "--dest", scratch], check=True)
            with tarfile.open(next(Path(scratch).glob("*.tar.gz"))) as archive:
                archive.extractall(scratch, filter="data")
            (Path(scratch) / release).rename(directory / release)
    return tests
