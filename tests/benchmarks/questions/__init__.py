"""The questions of the benchmark: a module for each, with the attributes of Question.

``measure`` runs in the main process and calls functions in a worker: ``lab.call(contestant,
"tests.benchmarks.questions.sync:single", size=100)`` runs ``single(cache, size=100)`` in the
process of the contestant. ../measuring.py has the code that such functions share.
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
    *("sync", "async", "near", "sessions", "requests", "network", "contention", "counters"),
    *("limits", "growth", "history", "limit_keys", "startup"),
)


class Question(Protocol):
    """A module of this package.

    It may also have ``NEEDS``, the names of modules without which the question is left out, and
    ``ONCE = True`` if it is measured in the first round only.
    """

    NAME: str
    TITLE: str

    def cells(self, quick: bool) -> list[dict[str, Any]]:
        """Return the parameters of each measurement, as flat mappings that JSON can store."""

    def takes_part(self, contestant: Contestant, cell: Cell) -> bool:
        """Return True if the contestant is to be measured in the cell."""

    def measure(
        self, lab: Lab, contestant: Contestant, cell: Cell, route: str = "direct"
    ) -> dict[str, float]:
        """Measure one contestant in one cell, for one round, and return the figures.

        Common figures are p50_us, p99_us, rate (operations a second), client_us and server_us
        (processor time of an operation), peak_mb and connections. Raises JobFailed if a result is
        wrong.
        """


def question(name: str) -> Question:
    """Return the question with this name, which is one of NAMES."""
    module = f"{name}_" if iskeyword(name) else name
    return cast(Question, import_module(f"{__name__}.{module}"))
