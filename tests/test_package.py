"""What is published: the wheel, and what importing it asks for."""

from __future__ import annotations

import email
import email.message
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.smoke

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "django_nats"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (file,) = directory.glob("*.whl")
    return zipfile.ZipFile(file)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))


def test_the_wheel_is_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    files = {
        file.relative_to(ROOT).as_posix()
        for file in PACKAGE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == files
    assert "django_nats/py.typed" in files


def test_the_licence_goes_with_the_wheel(
    wheel: zipfile.ZipFile, metadata: email.message.Message
) -> None:
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())


def test_the_version_is_written_in_one_place(metadata: email.message.Message) -> None:
    version = metadata["Version"]
    assert (ROOT / "pyproject.toml").read_text().count(f'"{version}"') == 1
    assert [file for file in PACKAGE.rglob("*.py") if f'"{version}"' in file.read_text()] == []


def run(script: str) -> str:
    python = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(python, cwd=ROOT, capture_output=True, text=True)
    assert not done.stderr
    return done.stdout


def test_importing_the_package_loads_neither_django_nor_nats() -> None:
    script = "import sys, django_nats; print({'django', 'nats'} & {*sys.modules})"
    assert run(script) == "set()\n"


def test_no_module_needs_an_extra_to_be_imported() -> None:
    script = """
import importlib, pkgutil, sys
for extra in ("lz4", "msgpack", "nkeys", "uvloop", "zstandard"):
    sys.modules[extra] = None
from django.conf import settings
settings.configure(INSTALLED_APPS=["django_nats"])
import django, django_nats
django.setup()
for module in pkgutil.walk_packages(django_nats.__path__, "django_nats."):
    importlib.import_module(module.name)
    print(module.name)
"""
    assert "django_nats.serializers\n" in run(script)
