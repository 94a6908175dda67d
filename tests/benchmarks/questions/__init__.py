"""The questions the benchmark asks: one module each, with the attributes of Question.

``measure`` runs in the driver and has a worker do the work: ``lab.call(contestant,
"tests.benchmarks.questions.sync:single", size=100)`` runs ``single(cache, size=100)`` in the
contestant's own process. What such functions have in common is in ../measuring.py.
"""

from __future__ import annotations

from importlib import import_module
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..results import Cell

if TYPE_CHECKING:
    from ..contestants import Contestant
    from ..lab import Lab

NAMES = (
    *("sync", "async", "near", "requests", "network", "contention", "counters", "growth"),
    *("history", "startup"),
)


class Question(Protocol):
    """A module of this package.

    It may also have ``NEEDS``, the names of modules without which the question is left out, and
    ``ONCE = True`` when one round is enough, however many the others take.
    """

    NAME: str
    TITLE: str

    def cells(self, quick: bool) -> list[dict[str, Any]]:
        """The parameters of each measurement: flat, and fit for JSON."""

    def takes_part(self, contestant: Contestant, cell: Cell) -> bool:
        """Whether the cell makes sense for a contestant."""

    def measure(
        self, lab: Lab, contestant: Contestant, cell: Cell, route: str = "direct"
    ) -> dict[str, float]:
        """One round of one cell by one contestant.

        p50_us, p99_us, rate (operations a second), client_us and server_us (processor time an
        operation), peak_mb, connections. Raises JobFailed for a wrong result.
        """


def question(name: str) -> Question:
    """The question of this name, one of NAMES."""
    module = f"{name}_" if iskeyword(name) else name
    return cast(Question, import_module(f"{__name__}.{module}"))
