"""The streams that another is the sum of: what the server says of them, in the words of settings.

The server knows a stream of another account or JetStream domain by its name and a hash of where it
is, which nobody would recognise.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from .counterconfig import SourceConfig
from .streamconfig import NANOSECONDS

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_HASH_LENGTH = 8

SILENCE = 10.0
"""Seconds without a sign of life, which comes every second, after which the server itself takes a
source for lost, and asks for it again."""


class SourceLag(NamedTuple):
    """How one of SOURCES keeps up with the sum, as the server that holds the sum sees it."""

    name: str
    lag: int
    """Messages that were on their way when the last one came. What a source that is out of reach
    counts meanwhile is not among them."""
    silence: float | None
    """Seconds since it was last heard of; None when it never was."""
    error: str | None
    """Why the sum does not follow it at the moment."""


def names_of(sources: Sequence[SourceConfig]) -> dict[tuple[str, str | None], str]:
    """What to call each of SOURCES, by its stream and API prefix: its stream's name, and where
    others have the same name, with its domain or API prefix after it, as in COUNTERS@eu."""
    places = {(each.stream, each.api_prefix) for each in sources}
    streams = [stream for stream, _ in places]
    names = {}
    for stream, api_prefix in places:
        name = stream
        if api_prefix is not None and streams.count(stream) > 1:
            name += f"@{api_prefix.removeprefix('$JS.').removesuffix('.API')}"
        names[stream, api_prefix] = name
    return names


def breakdown(told: str, sources: Sequence[SourceConfig]) -> dict[str, int]:
    """What each source adds to a counter, from the header Nats-Counter-Sources.

    What is no longer among SOURCES keeps the server's name. Raises ValueError, TypeError or
    AttributeError for what is no such header.
    """
    names = {_known_as(*each): name for each, name in names_of(sources).items()}
    return {
        names.get(source, source): sum(map(int, counters.values()))
        for source, counters in json.loads(told).items()
    }


def lags_of(document: Mapping[str, Any], sources: Sequence[SourceConfig]) -> list[SourceLag]:
    """How each source keeps up, by name, from what STREAM.INFO answers."""
    names = names_of(sources)
    found = []
    for told in document.get("sources") or ():
        stream, api_prefix = told["name"], (told.get("external") or {}).get("api")
        silence = told["active"] / NANOSECONDS if told["active"] >= 0 else None
        error = (told.get("error") or {}).get("description") or _lost(silence)
        name = names.get((stream, api_prefix), stream)
        found.append(SourceLag(name, told.get("lag", 0), silence, error))
    return sorted(found)


def _lost(silence: float | None) -> str | None:
    if silence is None:
        return "it has not been reached yet"
    return f"nothing was heard of it for {silence:.0f} s" if silence > SILENCE else None


def _known_as(stream: str, api_prefix: str | None) -> str:
    """What the server's header calls a source."""
    if api_prefix is None:
        return stream
    digest = sha256(api_prefix.encode()).digest()[:_HASH_LENGTH]
    return f"{stream}:{''.join(_DIGITS[byte % len(_DIGITS)] for byte in digest)}"
