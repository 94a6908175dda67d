"""What does a network of 1 ms add to the most frequent operations, and to whole requests?

The cells belong to other questions and are measured by them, but every server is behind a delaying
proxy (../delay.py). The ceiling, a view that does not wait for the network, is measured again.
"""

from __future__ import annotations

from typing import Any, Protocol

from ..contestants import EMPTY_VIEW, FILE, Contestant
from ..lab import DELAYED, Lab
from ..results import Cell
from . import async_, requests, sync

NAME = "network"
TITLE = "What does a network of 1 ms add?"
NEEDS = requests.NEEDS


class _Routed(Protocol):
    """A question that can be measured on another route."""

    def takes_part(self, contestant: Contestant, cell: Cell) -> bool: ...

    def measure(
        self, lab: Lab, contestant: Contestant, cell: Cell, route: str
    ) -> dict[str, float]: ...


_ALONE = {"size": 100, "threads": 1}
_TOGETHER = {"size": 100, "concurrency": 100}


def cells(quick: bool) -> list[dict[str, Any]]:
    view = {"interface": "ASGI", "clients": requests.CLIENTS}
    get = {"operation": "get", "keys": 1}
    if quick:
        return [view, {**get, **_ALONE}, {**get, **_TOGETHER}]
    return [
        view,
        {**get, **_ALONE},
        {"operation": "set", "keys": 1, **_ALONE},
        {"operation": "get_many", "keys": 100, **_ALONE},
        {"operation": "set_many", "keys": 100, **_ALONE},
        {**get, **_TOGETHER},
    ]


def takes_part(contestant: Contestant, cell: Cell) -> bool:
    if contestant.name == EMPTY_VIEW:
        return "interface" in cell
    if contestant.server is None or contestant.name == FILE:
        return False
    return _without_network(cell).takes_part(contestant, cell)


def measure(lab: Lab, contestant: Contestant, cell: Cell) -> dict[str, float]:
    return _without_network(cell).measure(lab, contestant, cell, DELAYED)


def _without_network(cell: Cell) -> _Routed:
    if "interface" in cell:
        return requests
    return async_ if "concurrency" in cell else sync
