"""The bakery's quotas: the loaves that a village may order in an hour."""

from __future__ import annotations

from typing import NamedTuple

from django.contrib.sessions.backends.base import SessionBase

from django_nats.limits import Quota, Usage

KEPT = 5
"""The orders that a reader's session keeps."""
_ORDERS = "orders"


class Village(NamedTuple):
    """A village that orders bread."""

    name: str
    loaves: int
    """How many it may order in an hour."""


class Order(NamedTuple):
    """An order of a reader."""

    id: str
    """That of the use of the quota, by which it can be given back."""
    village: str
    """The name of the village."""
    loaves: int
    is_returned: bool = False


VILLAGES = {"nether-ambry": Village("Nether Ambry", 12), "saltings": Village("Saltings", 6)}
LOAVES = Quota("loaves", limit=lambda village: VILLAGES[village].loaves, per="hour")


def orders(session: SessionBase) -> list[Order]:
    """Return the latest orders of a session, the newest first."""
    return [Order(*each) for each in session.get(_ORDERS, [])]


def order(session: SessionBase, village: str, loaves: int) -> Usage:
    """Order loaves for a village if it may have that many. Return what it has then."""
    usage = LOAVES.use(village, loaves)
    if usage:
        placed = Order(usage.id, VILLAGES[village].name, loaves)
        session[_ORDERS] = [placed, *orders(session)][:KEPT]
    return usage


def give_back(session: SessionBase, id: str) -> bool:
    """Give the loaves of an order back. Return False if they were given back before.

    Raises ValueError if there was no such order.
    """
    returned = LOAVES.refund(id)
    session[_ORDERS] = [
        each._replace(is_returned=True) if each.id == id else each for each in orders(session)
    ]
    return returned


def usages() -> dict[str, Usage]:
    """Return what each village has ordered in this hour."""
    return {village: LOAVES.usage(village) for village in VILLAGES}
