"""The streams of SOURCES, by the names that settings give them.

The server names a stream of another account or JetStream domain by its name and a hash of its API
prefix, which users would not recognise.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from ...printable import duration
from ..streams.config import NANOSECONDS
from .config import SourceConfig
from .digits import integer_of

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_HASH_LENGTH = 8

SILENCE_S = 10.0
"""Without a sign of life, which comes every second, before the server counts a source as lost and
asks for it again."""


class SourceLag(NamedTuple):
    """How far behind one of SOURCES is, as the server that stores the sum sees it."""

    name: str
    lag: int
    """Messages that were still to come when the last one came. Increments that a source counts
    while it is unreachable are not among them."""
    silence: float | None
    """Seconds since the last sign of life; None if there was none yet."""
    error: str | None
    """Why the sum does not include its increments at the moment; None if it does."""


def names_of(sources: Sequence[SourceConfig]) -> dict[tuple[str, str | None], str]:
    """Return the names of SOURCES, by stream and API prefix.

    A name is that of the stream. Where several streams have the same name, the domain or API prefix
    follows it, as in COUNTERS@eu.
    """
    places = {(each.stream, each.api_prefix) for each in sources}
    streams = [stream for stream, _ in places]
    names = {}
    for stream, api_prefix in places:
        name = stream
        if api_prefix is not None and streams.count(stream) > 1:
            name += f"@{api_prefix.removeprefix('$JS.').removesuffix('.API')}"
        names[stream, api_prefix] = name
    return names


def breakdown(header: str, sources: Sequence[SourceConfig]) -> dict[str, int]:
    """Return what each source adds to a counter, from the header Nats-Counter-Sources.

    A stream that is no longer among SOURCES keeps the server's name. Raises ValueError, TypeError
    or AttributeError if the header has another form.
    """
    names = {_known_as(*each): name for each, name in names_of(sources).items()}
    return {
        names.get(source, source): sum(integer_of(each.encode()) for each in counters.values())
        for source, counters in json.loads(header).items()
    }


def lags_of(document: Mapping[str, Any], sources: Sequence[SourceConfig]) -> list[SourceLag]:
    """Return how far behind each source is, by name, from the answer to STREAM.INFO."""
    names = names_of(sources)
    found = []
    for source in document.get("sources") or ():
        stream, api_prefix = source["name"], (source.get("external") or {}).get("api")
        silence = source["active"] / NANOSECONDS if source["active"] >= 0 else None
        error = (source.get("error") or {}).get("description") or _lost(silence)
        name = names.get((stream, api_prefix), stream)
        found.append(SourceLag(name, source.get("lag", 0), silence, error))
    return sorted(found)


def _lost(silence: float | None) -> str | None:
    if silence is None:
        return "it has not been reached yet"
    return f"no sign of life for {duration(round(silence))}" if silence > SILENCE_S else None


def _known_as(stream: str, api_prefix: str | None) -> str:
    """Return the name of a source in the server's header."""
    if api_prefix is None:
        return stream
    digest = sha256(api_prefix.encode()).digest()[:_HASH_LENGTH]
    return f"{stream}:{''.join(_DIGITS[byte % len(_DIGITS)] for byte in digest)}"
