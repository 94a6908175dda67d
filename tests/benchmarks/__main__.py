"""The benchmark, which measures all contestants alternately in one run.

    python -m tests.benchmarks [--quick] [--only QUESTION …] [--contestants NAME …]

Starts the servers on 127.0.0.1, prints tables, and writes results.json and a picture for each
question. Exits with status 1 if a measurement of django-nats failed.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from . import goals, plots, report, servers
from .conditions import conditions
from .contestants import CONTESTANTS, Contestant
from .figures import described
from .lab import JobFailed, Lab
from .questions import NAMES, Question, question
from .results import Cell, Document, LeftOut, save


@dataclass(frozen=True)
class Pace:
    """The number of rounds, and the seconds of one measurement.

    ``cells`` limits the number of cells of each question, for a run that only shows that all works.
    """

    rounds: int
    span: float
    quick: bool = True
    cells: int | None = None


FULL = Pace(rounds=4, span=0.14, quick=False)
QUICK = Pace(rounds=1, span=0.1)
SMOKE = Pace(rounds=1, span=0.01, cells=1)


@dataclass(frozen=True)
class Measurement:
    """One cell of a question, and the contestants that take part in it."""

    question: Question
    cell: Cell
    contestants: list[Contestant]

    def __str__(self) -> str:
        return ", ".join([self.question.NAME, *described(self.cell)])


class Run:
    """One run of the benchmark, whose results are added to a document."""

    def __init__(self, lab: Lab, document: Document) -> None:
        self._lab = lab
        self._document = document
        self._order = random.Random(1)  # seeded: every run has the same order
        self._failed: set[tuple[str, str]] = set()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        """Seconds that each question has taken."""
        self.failed = False
        """True if a measurement of django-nats has failed."""

    def admit(self, contestants: Sequence[Contestant]) -> list[Contestant]:
        """Return the contestants that are installed and can store a value. Record the others."""
        admitted = []
        for contestant in contestants:
            lacking = _not_installed(contestant.needs)
            if contestant.server is not None and contestant.server not in self._lab.servers:
                lacking = f"no server: {contestant.server}"
            if lacking:
                self._leave_out(contestant.name, lacking)
                continue
            try:
                self._lab.call(contestant, "tests.benchmarks.worker:try_out")
            except JobFailed as error:
                self._fail(contestant, contestant.name, error)
                continue
            admitted.append(contestant)
            if not contestant.asynchronous:
                self._leave_out(f"{contestant.name}, async", "it has no async methods")
        return admitted

    def round(self, measurements: Sequence[Measurement]) -> Iterator[str]:
        """Measure everything once. Yield a description of each measurement before it begins."""
        for each in measurements:
            contestants = [
                contestant
                for contestant in each.contestants
                if (str(each), contestant.name) not in self._failed
            ]
            self._order.shuffle(contestants)
            for contestant in contestants:
                yield f"{contestant.name}: {each}"
                begun = time.monotonic()
                try:
                    figures = each.question.measure(self._lab, contestant, each.cell)
                except JobFailed as error:
                    self._failed.add((str(each), contestant.name))
                    self._fail(contestant, f"{contestant.name}: {each}", error)
                else:
                    result = self._document.result(each.question.NAME, contestant.name, each.cell)
                    result.rounds.append(figures)
                self.seconds[each.question.NAME] += time.monotonic() - begun

    def _fail(self, contestant: Contestant, name: str, error: JobFailed) -> None:
        print(f"{name}:\n{error}", file=sys.stderr)
        self.failed = self.failed or contestant.server == "nats"
        self._leave_out(name, str(error).strip().splitlines()[-1])

    def _leave_out(self, name: str, why: str) -> None:
        self._document.left_out.append(LeftOut(name, why))


def plan(
    questions: Sequence[Question], contestants: Sequence[Contestant], pace: Pace
) -> list[Measurement]:
    """Return the measurements of the first round."""
    measurements = []
    for each in questions:
        for cell in each.cells(pace.quick)[: pace.cells]:
            taking_part = [
                contestant
                for contestant in contestants
                if (not contestant.only or each.NAME in contestant.only)
                and each.takes_part(contestant, cell)
            ]
            measurements.append(Measurement(each, cell, taking_part))
    return measurements


def askable(names: Sequence[str], document: Document) -> list[Question]:
    """Return the questions whose programs are installed. Record the others as left out."""
    found = []
    for each in map(question, names):
        lacking = _not_installed(getattr(each, "NEEDS", ()))
        if lacking:
            document.left_out.append(LeftOut(each.NAME, lacking))
        else:
            found.append(each)
    return found


def _not_installed(modules: Sequence[str]) -> str:
    """Return a text that names the missing modules, or "" if all are installed."""
    lacking = [module for module in modules if find_spec(module) is None]
    return f"not installed: {', '.join(lacking)}" if lacking else ""


def measure(
    names: Sequence[str], contestants: Sequence[Contestant], pace: Pace, console: Console
) -> tuple[Document, bool]:
    """Run the benchmark. Return its document, and True if no measurement of ours failed."""
    with ExitStack() as stack:
        # In this order, so that workers end before the servers they talk to.
        needed = dict.fromkeys(each.server for each in contestants if each.server)
        running, not_running = stack.enter_context(servers.start(list(needed)))
        lab = stack.enter_context(Lab(running, span=pace.span, quick=pace.quick))
        document = Document(
            conditions(running.values(), quick=pace.quick, rounds=pace.rounds), left_out=not_running
        )
        run = Run(lab, document)
        measurements = plan(askable(names, document), run.admit(contestants), pace)
        again = [each for each in measurements if not getattr(each.question, "ONCE", False)]
        rounds = [measurements, *[again] * (pace.rounds - 1)]
        progress = stack.enter_context(
            Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=console)
        )
        total = sum(len(each.contestants) for round_ in rounds for each in round_)
        task = progress.add_task("", total=total)
        for round_ in rounds:
            for coming in run.round(round_):
                progress.update(task, description=f"{coming:60.60}")
                progress.advance(task)
    document.conditions["seconds"] = {name: round(each) for name, each in run.seconds.items()}
    document.goals = goals.judge(document)
    return document, not run.failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description=__doc__)
    known = {contestant.name: contestant for contestant in CONTESTANTS}
    parser.add_argument("--quick", action="store_true", help="take two minutes instead of twenty")
    parser.add_argument("--smoke", action="store_true", help="only show that everything works")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="QUESTION")
    parser.add_argument("--contestants", nargs="+", choices=known, default=known, metavar="NAME")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--output", type=Path, default=Path("build/benchmark"), metavar="DIR")
    options = parser.parse_args(arguments)
    pace = SMOKE if options.smoke else QUICK if options.quick else FULL
    if options.rounds is not None:
        pace = replace(pace, rounds=options.rounds)
    signal.signal(signal.SIGTERM, _end)  # raises, so that the servers are ended too
    console = Console()
    contestants = [known[name] for name in options.contestants]
    document, fit = measure(options.only, contestants, pace, console)
    options.output.mkdir(parents=True, exist_ok=True)
    save(document, options.output / "results.json")
    report.show(document, console)
    for picture in plots.draw(document, options.output):
        console.print(picture)
    return 0 if fit else 1


def _end(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
