"""Totals of counters, keyed by the names that the pages use."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeAlias

from django_nats.counters import Counter, aprefetch_counters
from django_nats.exceptions import Unavailable
from testproject.magazine.models import Article

Totals: TypeAlias = dict[str, str]
"""Totals as text, since JavaScript's numbers are exact only up to 2^53.

"problem" is the reason if the totals cannot be read.
"""

BANKS = ("north", "south")


async def of_articles(articles: Sequence[Article]) -> Totals:
    """Return the views and likes of each article and of all of them, in one round trip."""
    try:
        await aprefetch_counters(articles, "views", "likes")
        views = sum(int(article.views) for article in articles)
        likes = sum(int(article.likes) for article in articles)
    except Unavailable as error:
        return {"problem": str(error)}
    totals = {"views": str(views), "likes": str(likes), "problem": ""}
    for article in articles:
        totals[f"views-{article.pk}"] = str(article.views)
        totals[f"likes-{article.pk}"] = str(article.likes)
    return totals


def readers(alias: str) -> Counter:
    """Return the counter of readers, on a bank or on the river."""
    return Counter("readers", alias=alias)


async def of_banks() -> Totals:
    """Return the totals of both banks and the river, and the part that the river has from each."""
    river = readers("river")
    try:
        sources, *counted = await asyncio.gather(
            river.asources(), river.avalue(), *(readers(bank).avalue() for bank in BANKS)
        )
    except Unavailable as error:
        return {"problem": str(error)}
    totals = {name: str(total) for name, total in zip(("river", *BANKS), counted, strict=True)}
    for bank in BANKS:
        totals[f"from_{bank}"] = str(sources.get(bank.upper(), 0))
    return {**totals, "problem": ""}
