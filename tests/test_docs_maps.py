"""The pages that describe the repository name existing files and show the current layers."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from django_nats.cache import NatsCache

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
CONTRIBUTING = (ROOT / "docs/contributing.md").read_text()


def test_the_pictures_of_the_layers_match_the_contracts() -> None:
    pictures = runpy.run_path(str(ROOT / "docs/layers.py"))["pictures"]()

    for file, picture in pictures.items():
        assert file.read_text() == picture, f"{file.name}: run python docs/layers.py"


def test_the_architecture_page_shows_both_pictures() -> None:
    page = (ROOT / "docs/explanation/architecture.md").read_text()

    assert re.findall(r"^:file: (\S+)$", page, re.MULTILINE) == ["layers.svg", "client.svg"]


def paths(text: str) -> list[str]:
    """Return the files and directories that a page names in backquotes."""
    return re.findall(r"`([\w.*/-]+(?:/|\.(?:py|md|ini|toml|css|svg)))`", text)


def exists(path: str) -> bool:
    """Return True if a path exists in the repository or in the package's directory."""
    return any(any(start.glob(path.rstrip("/"))) for start in (ROOT, ROOT / "django_nats"))


@pytest.mark.parametrize("path", sorted({*paths(CONTRIBUTING)}))
def test_every_path_that_contributing_names_exists(path: str) -> None:
    assert exists(path)


def test_a_path_that_does_not_exist_is_detected() -> None:
    assert paths("see `client/no_such.py`, `no_such/` and `tox.ini`") == [
        "client/no_such.py",
        "no_such/",
        "tox.ini",
    ]
    assert not exists("client/no_such.py")
    assert not exists("no_such/")


def test_every_module_of_the_package_has_a_row_in_contributing() -> None:
    table = CONTRIBUTING.partition("## Where things are")[2].partition("\n## ")[0]
    named = {path.rstrip("/") for path in paths(table)}
    modules = {
        each.name for each in (ROOT / "django_nats").iterdir() if not each.name.startswith("_")
    }
    rooms = {each.name for each in (ROOT / "django_nats/client").iterdir() if each.name[0] != "_"}

    assert modules - {"py.typed"} <= named
    assert {f"client/{room}" for room in rooms} <= named


def test_file_names_of_pages_use_hyphens() -> None:
    assert not [page.name for page in (ROOT / "docs").rglob("*.md") if "_" in page.name]


def test_every_name_in_the_sample_of_a_public_operation_exists() -> None:
    page = (ROOT / "docs/explanation/architecture.md").read_text()
    (sample,) = re.findall(r"^```python\n([^`]*^def get\(self.*?)^```", page, re.M | re.S)
    names = {*re.findall(r"self\.(\w+)", sample)}

    assert {"_get_near", "_run", "_arun"} <= names
    assert not [name for name in names if not hasattr(NatsCache, name)]


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs/how-to").glob("*.md")), ids=lambda page: page.stem
)
def test_a_how_to_page_ends_with_links_to_the_reference(page: Path) -> None:
    _, heading, end = page.read_text().rpartition("\n## ")

    assert heading
    assert end.startswith("See also\n")
    assert "](../reference/" in end
