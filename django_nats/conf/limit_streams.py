"""The streams of limits and quotas: one for each horizon, since counters expire by stream.

A stream's MAX_AGE is twice its longest window. Then the hits of a window are kept until the window
after it has passed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ..client.counters.config import CounterConfig
from .counters import CounterSettings

_DAY_S = 86_400
_DEADLINE_S = 1.0
"""The server remembers ids for three times that, and hits have none. It is the same for all limits,
since those that share a stream must not disagree about it."""


class Horizon(NamedTuple):
    """The windows that share a stream: those of up to ``seconds``."""

    name: str
    seconds: int


HORIZONS = (
    Horizon("MINUTE", 60),
    Horizon("HOUR", 3600),
    Horizon("DAY", _DAY_S),
    Horizon("LONG", 366 * _DAY_S),
)
LIMITS, QUOTAS = "LIMITS", "QUOTAS"
_DESCRIPTIONS = {LIMITS: "Django rate limits", QUOTAS: "Django quotas"}


def limit_stream(
    settings: CounterSettings, seconds: float, timeout: float | None = None
) -> CounterConfig:
    """Return the configuration of the stream for limits with a window of a number of seconds.

    ``timeout`` is the number of seconds to wait for an answer, by default REQUEST_TIMEOUT.
    """
    config = _stream(settings, LIMITS, seconds)
    return replace(
        config,
        storage="memory",  # they are worth little after a restart
        history=1,
        deadline=_DEADLINE_S,
        request_timeout=timeout or config.request_timeout,
    )


def quota_stream(settings: CounterSettings, seconds: float) -> CounterConfig:
    """Return the configuration of the stream for quotas with periods of a number of seconds."""
    return replace(_stream(settings, QUOTAS, seconds), storage="file")


def _stream(settings: CounterSettings, kind: str, seconds: float) -> CounterConfig:
    horizon = next(each for each in HORIZONS if seconds <= each.seconds)
    config = settings.stream
    max_age = 2.0 * horizon.seconds
    return replace(
        config,
        stream=f"{config.stream}_{kind}_{horizon.name}",
        prefix=f"{config.prefix}_{kind.lower()}_{horizon.name.lower()}",
        max_age=max_age,
        # The server remembers ids for three times that, and never for longer than messages live.
        deadline=min(config.deadline, max_age / 3),
        sources=(),
        max_bytes=None,
        description=f"{_DESCRIPTIONS[kind]} (windows up to {horizon.name.lower()})",
        is_timed=True,
    )
