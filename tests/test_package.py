"""The published package: the contents of the wheel, and what importing it needs."""

from __future__ import annotations

import email
import email.message
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import django_nats

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


def test_the_wheel_contains_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    files = {
        file.relative_to(ROOT).as_posix()
        for file in PACKAGE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == files
    assert "django_nats/py.typed" in files


def test_the_wheel_contains_the_licence(
    wheel: zipfile.ZipFile, metadata: email.message.Message
) -> None:
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())


def test_the_package_knows_its_version(metadata: email.message.Message) -> None:
    assert django_nats.__version__ == metadata["Version"]


def test_the_metadata_leads_to_the_source_and_the_documentation(
    metadata: email.message.Message,
) -> None:
    urls = dict(each.split(", ") for each in metadata.get_all("Project-URL", []))

    assert urls.keys() >= {"Homepage", "Documentation", "Changelog", "Source", "Issues"}
    assert all(url.startswith("https://") for url in urls.values())


README = (ROOT / "README.md").read_text()


def test_every_link_of_the_readme_is_absolute() -> None:
    """The package index shows the page, where relative links lead nowhere."""
    prose = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)|<(\w+:[^>]+)>", prose, re.MULTILINE)
    links = ["".join(each) for each in targets]

    assert len(links) > 10
    assert [link for link in links if not link.startswith(("https://", "http://127.0.0.1"))] == []


def test_the_documentation_has_the_pages_that_the_readme_links_to() -> None:
    (base,) = re.findall(r'^Documentation = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    pages = re.findall(rf"{re.escape(base)}en/latest/([\w/-]+)\.html(#[\w-]+)?", README)

    assert len(pages) > 10
    for page, anchor in pages:
        text = (ROOT / "docs" / f"{page}.md").read_text()
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        anchors = {"#" + re.sub(r"\W+", "-", heading.lower()).strip("-") for heading in headings}
        assert not anchor or anchor in anchors, page


def test_every_reference_of_the_readme_has_a_link() -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", README, flags=re.DOTALL)
    links = {each.lower() for each in re.findall(r"^\[([^\]]+)\]: ", prose, re.MULTILINE)}
    named = re.findall(r"\[[^\]]+\]\[([^\]]+)\]|(?<!\])\[([^\]]+)\](?![\[(:])", prose)

    assert {" ".join("".join(each).split()).lower() for each in named} == links


def run(script: str) -> str:
    python = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(python, cwd=ROOT, capture_output=True, text=True)
    assert not done.stderr
    return done.stdout


def test_importing_the_package_loads_neither_django_nor_nats() -> None:
    script = "import sys, django_nats; print({'django', 'nats'} & {*sys.modules})"
    assert run(script) == "set()\n"


def test_every_module_can_be_imported_without_extras() -> None:
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
