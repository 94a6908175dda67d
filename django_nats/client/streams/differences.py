"""How an existing stream differs from settings, and how to change what the server can change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..protocol import wire
from ..protocol.steps import Steps
from .config import StreamConfig, text_of
from .requirements import unmet
from .stream import Stream


class Difference(NamedTuple):
    """One field in which an existing stream differs from settings, or from what it must be."""

    field: str
    existing: Any
    wanted: Any
    obstacle: str = ""
    """Why `nats setup` does not change it. Empty if it does, without losing data."""
    breaks: str = ""
    """What does not work with such a stream. Empty if settings only say something else."""

    @property
    def fixable(self) -> bool:
        """Return True if the server can change the field without losing data."""
        return not self.obstacle

    def __str__(self) -> str:
        existing, wanted = self.texts
        if self.breaks:
            return f"{self.field}: {existing} on the server, not {wanted} ({self.breaks})"
        return f"{self.field}: {existing} on the server, {wanted} in settings"

    def reverse(self) -> Difference:
        """Return the same field with what exists and what is wanted exchanged."""
        return self._replace(existing=self.wanted, wanted=self.existing)

    @property
    def texts(self) -> tuple[str, str]:
        """Return what exists and what is wanted, for people."""
        return text_of(self.field, self.existing), text_of(self.field, self.wanted)


# Fields that the server refuses to change, or that make the stream another program's.
_FIXED = {"subjects", "storage", "persist_mode"}
_LOSES_DATA = "cannot be changed without losing data"
_DEFAULTS: dict[str, Any] = {"persist_mode": "default", "compression": "none"}
_SWITCHES = ("allow_", "deny_")


def differences(
    config: StreamConfig, existing: Mapping[str, Any], state: Mapping[str, Any]
) -> list[Difference]:
    """Return how an existing stream differs from settings, and from what it must be.

    ``state`` is the stream's, and tells which changes would lose data.

    >>> from django_nats.client.kv.config import BucketConfig
    >>> wanted = BucketConfig("web")
    >>> differences(wanted, wanted.stream_config() | {"discard": "new"}, {})
    [Difference(field='discard', existing='new', wanted='old', obstacle='', breaks='')]
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
            is_kept = name in _FIXED or config.loses_data(name, before, after, state)
            found.append(Difference(name, before, after, _LOSES_DATA if is_kept else ""))
    listed = {each.field for each in found}
    for each in unmet(config, existing):
        if each.field not in listed:
            value = each.value(existing)
            reason = each.fixed(value)
            obstacle = f"cannot be changed: {reason}" if reason else ""
            target = each.target(config)
            found.append(Difference(each.field, value, target, obstacle, each.breaks))
    return found


def update(stream: Stream[Any], existing: Mapping[str, Any]) -> Steps[dict[str, Any]]:
    """Change a stream's configuration from ``existing`` to that of settings.

    What settings do not name stays as it is, unless it breaks something. Return the server's
    document about the stream. Raises ServerError if the server refuses.
    """
    config = stream.config
    wanted = config.stream_config()
    changed = {each.field: each.wanted for each in differences(config, existing, {})}
    metadata = {**existing.get("metadata", {}), **wanted.get("metadata", {})}
    kept = {each.field for each in config.requirements}
    named = {field: value for field, value in wanted.items() if field not in kept}
    payload = wire.compact_json({**existing, **named, **changed, "metadata": metadata})
    wire.parse_api((yield stream.api_request(stream.api.update, payload)))
    return (yield from stream.opening.open())


def _without_empty(value: Any) -> Any:
    """Return a value without the empty members that the server adds or leaves out."""
    if isinstance(value, list):
        return [_without_empty(each) for each in value]
    if isinstance(value, Mapping):
        return {name: _without_empty(each) for name, each in value.items() if each}
    return value
