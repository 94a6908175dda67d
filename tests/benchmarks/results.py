"""The document of a run, from which tables, pictures and goals are made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Cell = Mapping[str, Any]


@dataclass
class Result:
    """The figures of one contestant in one cell of a question, as a mapping for each round."""

    question: str
    contestant: str
    cell: Cell
    rounds: list[dict[str, float]] = field(default_factory=list)


@dataclass
class LeftOut:
    """A server, a contestant, a question or a cell that was not measured, and why."""

    name: str
    why: str


@dataclass
class Goal:
    """A ratio with its bounds. ``measured`` is None if the ratio was not measured."""

    name: str
    measured: float | None
    reach: str
    after: str
    verdict: str
    with_asyncio: float | None = None
    """The ratio of the contestant that uses asyncio instead of uvloop."""


@dataclass
class Document:
    """The conditions and the results of one run."""

    conditions: dict[str, Any]
    results: list[Result] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)

    def find(self, question: str, contestant: str, **cell: Any) -> Result | None:
        """Return the first result whose cell has these parameters, or None."""
        wanted = cell.items()
        for result in self.results:
            known = (result.question, result.contestant)
            if known == (question, contestant) and wanted <= result.cell.items():
                return result
        return None

    def result(self, question: str, contestant: str, cell: Cell) -> Result:
        """Return the result of exactly this cell. Add it if the document does not have it."""
        for result in self.results:
            if (result.question, result.contestant, result.cell) == (question, contestant, cell):
                return result
        result = Result(question, contestant, cell)
        self.results.append(result)
        return result


def save(document: Document, path: Path) -> None:
    path.write_text(json.dumps(asdict(document), indent=1, ensure_ascii=False) + "\n")


def load(path: Path) -> Document:
    stored = json.loads(path.read_text())
    return Document(
        conditions=stored["conditions"],
        results=[Result(**each) for each in stored["results"]],
        left_out=[LeftOut(**each) for each in stored["left_out"]],
        goals=[Goal(**each) for each in stored["goals"]],
    )
