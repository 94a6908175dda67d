"""How a stream that exists differs from settings, and which of that the server can change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .streamconfig import StreamConfig


class Difference(NamedTuple):
    """One field in which an existing stream is not what settings say."""

    field: str
    existing: Any
    wanted: Any
    fixable: bool
    """Whether the server can change it in place without losing data."""

    def __str__(self) -> str:
        return f"{self.field}: {self.existing!r} on the server, {self.wanted!r} in settings"


# What the server refuses to change on an existing stream, or what makes it another's stream.
_FIXED = {"subjects", "mirror", "retention", "storage", "persist_mode", "allow_msg_counter"}
_DEFAULTS: dict[str, Any] = {"persist_mode": "default", "compression": "none"}
_SWITCHES = ("allow_", "deny_")


def differences(
    config: StreamConfig, existing: Mapping[str, Any], state: Mapping[str, Any]
) -> list[Difference]:
    """How an existing stream's config differs from settings; its state tells what would be lost.

    >>> from django_nats.client.bucket import BucketConfig
    >>> wanted = BucketConfig("web")
    >>> differences(wanted, wanted.stream_config() | {"discard": "new"}, {})
    [Difference(field='discard', existing='new', wanted='old', fixable=True)]
    """
    wanted = config.stream_config()
    found = []
    for name in config.compared:
        default = _DEFAULTS.get(name, False if name.startswith(_SWITCHES) else None)
        before, after = existing.get(name, default), wanted.get(name, default)
        if _spoken(before) != _spoken(after):
            fixable = name not in _FIXED and not config.loses_data(name, before, after, state)
            found.append(Difference(name, before, after, fixable))
    return found


def _spoken(value: Any) -> Any:
    """A value without the empty members that the server adds, or leaves out."""
    if isinstance(value, list):
        return [_spoken(each) for each in value]
    if isinstance(value, Mapping):
        return {name: _spoken(each) for name, each in value.items() if each}
    return value
