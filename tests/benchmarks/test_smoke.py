"""Run the whole benchmark once, as briefly as possible, so that it stays working."""

from __future__ import annotations

import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.benchmarks.__main__ import SMOKE, plan
from tests.benchmarks.contestants import (
    ASYNCIO,
    CONTESTANTS,
    COUNTER,
    LIMIT,
    LIMIT_FLOOR,
    LOCMEM,
    NATS_FLOOR,
    OURS,
)
from tests.benchmarks.goals import RATIOS
from tests.benchmarks.lab import ROOT
from tests.benchmarks.questions import NAMES, question
from tests.benchmarks.results import load

# These need no server but NATS, so that the test is the same on every machine.
CHOSEN = [OURS, ASYNCIO, COUNTER, LIMIT, LOCMEM, NATS_FLOOR, LIMIT_FLOOR]


def test_everything_chosen_is_measured_and_shown_or_reported_as_left_out(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--smoke", "--output", str(tmp_path)]
    run = subprocess.run(
        [*command, "--contestants", *CHOSEN], cwd=ROOT, capture_output=True, text=True, timeout=850
    )
    assert (run.returncode, run.stderr) == (0, "")

    document = load(tmp_path / "results.json")
    contestants = [each for each in CONTESTANTS if each.name in CHOSEN]
    questions = [question(name) for name in NAMES]
    lacking = {
        each.name: each.needs for each in contestants if not all(map(find_spec, each.needs))
    } | {
        each.NAME: each.NEEDS
        for each in questions
        if hasattr(each, "NEEDS") and not all(map(find_spec, each.NEEDS))
    }
    assert {each.name for each in document.left_out} == lacking.keys()
    for each in document.left_out:
        assert each.name in run.stdout

    asked = [each for each in questions if each.NAME not in lacking]
    able = [each for each in contestants if each.name not in lacking]
    assert {
        (each.question, each.contestant, *sorted(each.cell.items())) for each in document.results
    } == {
        (measurement.question.NAME, contestant.name, *sorted(measurement.cell.items()))
        for measurement in plan(asked, able, SMOKE)
        for contestant in measurement.contestants
    }
    for result in document.results:
        assert len(result.rounds) == SMOKE.rounds
        assert result.rounds[0]
        assert all(map(math.isfinite, result.rounds[0].values()))
    assert len(document.goals) == len(RATIOS)

    for name in {each.question for each in document.results}:
        assert question(name).TITLE in run.stdout
        assert (tmp_path / f"{name}.svg").read_text().rstrip().endswith("</svg>")
