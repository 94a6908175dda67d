"""How an existing stream differs from settings, and how to change what the server can change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...printable import duration
from ..protocol import wire
from ..protocol.steps import Steps
from .config import NANOSECONDS, StreamConfig
from .stream import Stream


class Difference(NamedTuple):
    """One field in which an existing stream differs from settings."""

    field: str
    existing: Any
    wanted: Any
    fixable: bool
    """Whether the server can change it without losing data."""

    def __str__(self) -> str:
        existing, wanted = self.texts
        return f"{self.field}: {existing} on the server, {wanted} in settings"

    def reverse(self) -> Difference:
        """Return the same field with what exists and what is wanted exchanged."""
        return self._replace(existing=self.wanted, wanted=self.existing)

    @property
    def texts(self) -> tuple[str, str]:
        """Return what exists and what is wanted, for people."""
        return text_of(self.field, self.existing), text_of(self.field, self.wanted)


# Fields that the server refuses to change, or that make the stream another program's.
_FIXED = {"subjects", "mirror", "retention", "storage", "persist_mode", "allow_msg_counter"}
_DEFAULTS: dict[str, Any] = {"persist_mode": "default", "compression": "none"}
_NANOSECONDS = {"max_age", "duplicate_window", "subject_delete_marker_ttl"}
_SWITCHES = ("allow_", "deny_")


def text_of(field: str, value: Any) -> str:
    """Return the value of a field of a stream's configuration, for people.

    >>> text_of("max_age", 900 * 10**9), text_of("storage", "file")
    ('15 min', "'file'")
    """
    if field in _NANOSECONDS and isinstance(value, int):
        return duration(value / NANOSECONDS) if value else "none"
    return repr(value)


def differences(
    config: StreamConfig, existing: Mapping[str, Any], state: Mapping[str, Any]
) -> list[Difference]:
    """Return how an existing stream's configuration differs from settings.

    ``state`` is the stream's, and tells which changes would lose data.

    >>> from django_nats.client.kv.config import BucketConfig
    >>> wanted = BucketConfig("web")
    >>> differences(wanted, wanted.stream_config() | {"discard": "new"}, {})
    [Difference(field='discard', existing='new', wanted='old', fixable=True)]
    """
    wanted = config.stream_config()
    # Of the metadata, only what settings name: the server and other tools attach more.
    stored, named = existing.get("metadata", {}), wanted.get("metadata", {})
    other = [name for name, text in named.items() if stored.get(name) != text]
    wanted["metadata"] = {name: named[name] for name in other} or None
    known = {name: stored[name] for name in other if name in stored}
    existing = {**existing, "metadata": known or None}
    found = []
    for name in config.compared:
        default = _DEFAULTS.get(name, False if name.startswith(_SWITCHES) else None)
        before, after = existing.get(name, default), wanted.get(name, default)
        if _without_empty(before) != _without_empty(after):
            fixable = name not in _FIXED and not config.loses_data(name, before, after, state)
            found.append(Difference(name, before, after, fixable))
    return found


def update(stream: Stream[Any], existing: Mapping[str, Any]) -> Steps[dict[str, Any]]:
    """Change a stream's configuration from ``existing`` to that of settings.

    What settings do not name stays as it is. Return the server's document about the stream. Raises
    ServerError if the server refuses.
    """
    config = stream.config
    wanted = config.stream_config()
    changed = {each.field: each.wanted for each in differences(config, existing, {})}
    metadata = {**existing.get("metadata", {}), **wanted.get("metadata", {})}
    payload = wire.compact_json({**existing, **wanted, **changed, "metadata": metadata})
    wire.parse_api((yield stream.api_request(stream.api.update, payload)))
    return (yield from stream.open())


def _without_empty(value: Any) -> Any:
    """Return a value without the empty members that the server adds or leaves out."""
    if isinstance(value, list):
        return [_without_empty(each) for each in value]
    if isinstance(value, Mapping):
        return {name: _without_empty(each) for name, each in value.items() if each}
    return value
