"""Pictures drawn from a handwritten results document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("psutil")

from tests.benchmarks import plots
from tests.benchmarks.contestants import CONTESTANTS, DJANGO_REDIS, NATS_FLOOR, OURS, Contestant
from tests.benchmarks.figures import kind
from tests.benchmarks.questions import NAMES, question
from tests.benchmarks.results import Document

SVG = "{http://www.w3.org/2000/svg}"
GET = {"operation": "get", "size": 100, "keys": 1, "threads": 1}


def taking_part(name: str, cell: Mapping[str, Any]) -> list[Contestant]:
    """Return the contestants that are measured in a cell, of which some parameters are given."""
    asked = question(name)
    cells = [each for each in asked.cells(quick=False) if cell.items() <= each.items()]
    return [
        contestant
        for contestant in CONTESTANTS
        if (not contestant.only or name in contestant.only)
        and any(asked.takes_part(contestant, each) for each in cells)
    ]


def everything() -> Document:
    """Return a document with all contestants of every panel, with values of many digits."""
    document = Document({})
    for name, picture in plots.PICTURES.items():
        for panel in picture.panels:
            contestants = taking_part(name, panel.cell)
            for rank, contestant in enumerate(contestants[:3] if picture.by else contestants):
                for entries in (1000, 100_000, 1_000_000) if picture.by else (0,):
                    cell = {**panel.cell, "entries": entries}
                    result = document.result(name, contestant.name, cell)
                    result.rounds = result.rounds or [{}, {}, {}]
                    for number, figures in enumerate(result.rounds):
                        figures[panel.figure] = 98_765.0 + rank + number
    return document


def texts(path: Path) -> list[str]:
    return [each.text or "" for each in ElementTree.parse(path).iter(f"{SVG}text")]


def bars(path: Path, colour: str) -> list[float]:
    """Return the lengths of the bars of a colour."""
    found = []
    for each in ElementTree.parse(path).iter(f"{SVG}path"):
        if f"fill: {colour}" in each.get("style", "") and " Q " not in each.get("d", ""):
            numbers = [float(number) for number in re.findall(r"[\d.]+", each.get("d", ""))]
            found.append(max(numbers[::2]) - min(numbers[::2]))
    return found


def sync(**figures: list[float]) -> Document:
    document = Document({})
    names = {"ours": OURS, "redis": DJANGO_REDIS, "floor": NATS_FLOOR}
    for name, values in figures.items():
        document.result("sync", names[name], GET).rounds = [{"p50_us": each} for each in values]
    return document


def test_every_question_has_a_picture_of_known_figures() -> None:
    assert set(plots.PICTURES) == set(NAMES)
    for picture in plots.PICTURES.values():
        assert all(kind(panel.figure) for panel in picture.panels)


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_shows_a_measured_cell(name: str) -> None:
    cells = question(name).cells(quick=False)
    for panel in plots.PICTURES[name].panels:
        assert any(panel.cell.items() <= cell.items() for cell in cells), panel.title


@pytest.mark.parametrize("name", NAMES)
def test_a_quick_run_has_something_to_draw(name: str) -> None:
    cells = question(name).cells(quick=True)
    panels = plots.PICTURES[name].panels
    assert any(panel.cell.items() <= cell.items() for panel in panels for cell in cells)


def test_each_measured_question_gets_a_picture(tmp_path: Path) -> None:
    assert plots.draw(sync(ours=[80]), tmp_path) == [tmp_path / "sync.svg"]
    assert plots.draw(Document({}), tmp_path) == []
    paths = plots.draw(everything(), tmp_path)
    assert [path.stem for path in paths] == list(plots.PICTURES)


def test_pictures_are_small(tmp_path: Path) -> None:
    sizes = {path.stem: path.stat().st_size for path in plots.draw(everything(), tmp_path)}
    assert max(sizes.values()) < 64_000, sizes


def test_the_same_figures_make_the_same_picture(tmp_path: Path) -> None:
    paths = [plots.draw(sync(ours=[80, 90], redis=[200]), tmp_path / name)[0] for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert "date" not in paths[0].read_text()


def test_bars_begin_at_zero_and_are_proportional_to_their_figures(tmp_path: Path) -> None:
    (path,) = plots.draw(sync(ours=[70, 80, 90], redis=[200, 200, 200]), tmp_path)
    (ours,), (theirs,) = bars(path, plots.BLUE), bars(path, plots.GREY)
    assert ours / theirs == pytest.approx(80 / 200, abs=1e-4)


def test_compared_panels_have_one_scale(tmp_path: Path) -> None:
    document = Document({})
    for processes, rate in ((1, 1000), (8, 4000)):
        result = document.result("contention", OURS, {"processes": processes})
        result.rounds = [{"rate": rate}]
    (path,) = plots.draw(document, tmp_path)
    alone, together = bars(path, plots.BLUE)
    assert alone / together == pytest.approx(1 / 4, abs=1e-4)


def test_negative_figures_have_no_bar(tmp_path: Path) -> None:
    document = Document({})
    for name, ms in ((OURS, -2.4), (DJANGO_REDIS, 30.0)):
        document.result("startup", name, {"until": "setup"}).rounds = [{"ms": ms}, {"ms": ms - 1}]
    (path,) = plots.draw(document, tmp_path)
    assert bars(path, plots.BLUE) == [0]
    assert "-2.9" in texts(path)


def test_adjacent_panels_show_only_their_contestants(tmp_path: Path) -> None:
    document = sync(ours=[80], floor=[40])
    document.result("sync", OURS, {**GET, "operation": "get_many", "keys": 100}).rounds = [
        {"p50_us": 900}
    ]
    document.result("sync", OURS, {**GET, "operation": "set"}).rounds = [{"p50_us": 90}]
    (path,) = plots.draw(document, tmp_path)
    assert texts(path).count(OURS) == 2
    assert texts(path).count(NATS_FLOOR) == 1
    assert texts(path).count("—") == 1  # the floor's set


def test_values_are_written_beside_the_bars(tmp_path: Path) -> None:
    (path,) = plots.draw(sync(ours=[70, 80, 90], redis=[2000]), tmp_path)
    assert {"80", "2,000", OURS, DJANGO_REDIS, "get"} <= set(texts(path))
    assert "set" not in texts(path)  # no contestant was measured there


def test_the_best_cache_comes_first_and_floors_last(tmp_path: Path) -> None:
    (path,) = plots.draw(sync(redis=[200], floor=[10], ours=[80]), tmp_path)
    names = [text for text in texts(path) if text in (OURS, DJANGO_REDIS, NATS_FLOOR)]
    assert names == [OURS, DJANGO_REDIS, NATS_FLOOR]


def test_the_highest_rate_comes_first(tmp_path: Path) -> None:
    document = Document({})
    for name, rate in ((OURS, 10), (DJANGO_REDIS, 20)):
        document.result("contention", name, {"processes": 1}).rounds = [{"rate": rate}]
    (path,) = plots.draw(document, tmp_path)
    assert [text for text in texts(path) if text in (OURS, DJANGO_REDIS)] == [DJANGO_REDIS, OURS]


def test_the_text_is_legible_on_the_card(tmp_path: Path) -> None:
    (path, *_) = plots.draw(everything(), tmp_path)
    styles = [each.get("style", "") for each in ElementTree.parse(path).iter(f"{SVG}text")]
    colours = {colour for style in styles for colour in re.findall("fill: (#\\w+)", style)}
    assert colours
    for colour in colours:
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour, as WCAG defines it."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_bars_and_values_stay_within_the_card(tmp_path: Path) -> None:
    for path in plots.draw(everything(), tmp_path):
        for each in ElementTree.parse(path).iter(f"{SVG}text"):
            style, start = each.get("style", ""), float(each.get("x", "nan"))
            size = float(re.findall(r"font-size: ([\d.]+)px", style)[0])
            length = 0.55 * size * len(each.text or "")  # a digit of Arial
            end = start - length if "text-anchor: end" in style else start + length
            assert min(start, end) > 0, each.text
            assert max(start, end) < plots.WIDTH, each.text
