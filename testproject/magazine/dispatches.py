"""Reports from twenty harbours, which are fetched slowly and cached for a short time."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from datetime import datetime

from django.core.cache import cache
from django.utils import timezone
from django.utils.text import slugify

TIMEOUT_S = 20
"""The timeout of a report in the cache."""
HARBOURS = (
    "Aldersound", "Bittern Hythe", "Candle Bay", "Dunmarrow", "Easter Quay",
    "Fennel Point", "Gannet Steps", "Harrow Ness", "Inch Mallow", "Jetty St Brae",
    "Kelp Haven", "Larkmouth", "Mirrow Sands", "Nethercliff", "Otter Sluice",
    "Penny Reach", "Quill Head", "Rushy Lock", "Saltersgate", "Tarn Landing",
)  # fmt: skip
KEYS = {f"dispatch:{slugify(harbour)}": harbour for harbour in HARBOURS}
SKIES = ("clear", "fair", "hazy", "cloudy", "drizzle", "mist")


@dataclass(frozen=True)
class Report:
    """The report of a harbour. The water level is in metres."""

    harbour: str
    level: float
    rising: bool
    sky: str
    received_at: datetime


@dataclass(frozen=True)
class Reading:
    """A way to read all reports, and the time it took."""

    title: str
    code: str
    milliseconds: float


@dataclass(frozen=True)
class Board:
    """All reports, the number of fetched ones, and the time that three ways to read them took."""

    reports: list[Report]
    fetched: int
    milliseconds: float
    readings: list[Reading]

    @property
    def slowest(self) -> float:
        """Return the time of the slowest way, in milliseconds."""
        return max(reading.milliseconds for reading in self.readings)


async def board() -> Board:
    """Return all reports. Those that are not in the cache are fetched from the harbours."""
    began = time.perf_counter()
    known = await cache.aget_many(KEYS)
    missing = [key for key in KEYS if key not in known]
    known.update(zip(missing, await asyncio.gather(*map(fetch, missing)), strict=True))
    milliseconds = (time.perf_counter() - began) * 1000
    reports = [known[key] for key in KEYS]
    return Board(reports, len(missing), milliseconds, await readings())


async def fetch(key: str) -> Report:
    """Fetch a report, slowly, and store it in the cache."""
    await asyncio.sleep(random.uniform(0.1, 0.4))
    report = Report(
        harbour=KEYS[key],
        level=round(random.uniform(0.4, 5.8), 1),
        rising=random.random() < 0.5,
        sky=random.choice(SKIES),
        received_at=timezone.now(),
    )
    await cache.aset(key, report, TIMEOUT_S)
    return report


async def readings() -> list[Reading]:
    """Read the same twenty values in three ways. Return the time of each."""
    began = time.perf_counter()
    for key in KEYS:
        await cache.aget(key)
    in_turn = time.perf_counter()
    await asyncio.gather(*map(cache.aget, KEYS))
    at_once = time.perf_counter()
    await cache.aget_many(KEYS)
    in_one = time.perf_counter()
    ways = (
        ("One after another", "for key in keys: await cache.aget(key)", in_turn - began),
        ("All at once", "await asyncio.gather(*map(cache.aget, keys))", at_once - in_turn),
        ("In one request", "await cache.aget_many(keys)", in_one - at_once),
    )
    return [Reading(title, code, seconds * 1000) for title, code, seconds in ways]
