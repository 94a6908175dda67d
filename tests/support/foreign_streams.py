"""Streams as other people make or change them: the cases, and what makes such a stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from django_nats.client.streams.config import StreamConfig

SECOND = 10**9


class Case(NamedTuple):
    """A change of the configuration that this package gives a stream."""

    change: dict[str, Any]
    field: str
    """The field that errors name."""
    is_mended: bool = True
    """Whether `nats setup` mends it."""
    is_used: bool = False
    """Whether such a stream is used all the same."""


# In subjects, FILTER is the stream's own, and OTHER the name of another stream.
_SHARED = [
    Case({"sealed": True}, "sealed", is_mended=False),
    Case({"no_ack": True}, "no_ack"),
    Case({"subject_transform": {"src": "FILTER", "dest": "moved.>"}}, "subject_transform"),
    Case({"subject_transform": {"src": "", "dest": "moved.>"}}, "subject_transform"),
    Case({"deny_purge": True, "allow_rollup_hdrs": False}, "deny_purge", is_mended=False),
    Case({"allow_direct": False}, "allow_direct"),
    Case({"max_consumers": 1}, "max_consumers", is_used=True),
    Case(
        {"consumer_limits": {"inactive_threshold": SECOND}},
        "consumer_limits",
        is_used=True,
    ),
]

BUCKETS = [
    *_SHARED,
    Case({"retention": "interest"}, "retention"),
    Case({"retention": "workqueue"}, "retention", is_mended=False),
    Case({"discard": "new", "discard_new_per_subject": True}, "discard_new_per_subject"),
    Case({"max_msgs_per_subject": 5}, "max_msgs_per_subject"),
    Case({"max_msgs_per_subject": -1}, "max_msgs_per_subject"),
    Case({"allow_rollup_hdrs": False}, "allow_rollup_hdrs"),
    Case({"allow_msg_ttl": False}, "allow_msg_ttl"),
    Case({"subjects": ["FILTER", "OTHER.>"]}, "subjects", is_mended=False),
    Case({"subjects": ["OTHER.>"]}, "subjects", is_mended=False),
    Case({"sources": [{"name": "OTHER"}]}, "sources", is_mended=False),
    Case({"subjects": None, "mirror": {"name": "OTHER"}}, "mirror", is_mended=False),
    Case(
        {"allow_msg_counter": True, "allow_msg_ttl": False},
        "allow_msg_counter",
        is_mended=False,
    ),
    # What only differs from settings.
    Case({"republish": {"src": ">", "dest": "heard.>"}}, "republish", is_used=True),
    Case({"max_age": 3600 * SECOND}, "max_age", is_used=True),
    Case({"discard": "new"}, "discard", is_used=True),
    Case({"max_msg_size": 1000}, "max_msg_size", is_used=True),
]

COUNTERS = [
    *_SHARED,
    Case({"allow_msg_counter": False}, "allow_msg_counter", is_mended=False),
    Case({"subjects": ["OTHER.>"]}, "subjects", is_mended=False),
    Case(
        {
            "subjects": None,
            "allow_msg_counter": False,
            "duplicate_window": 0,
            "mirror": {"name": "OTHER"},
        },
        "mirror",
        is_mended=False,
    ),
    Case({"storage": "file", "persist_mode": "async"}, "persist_mode", is_mended=False),
    Case({"max_msgs": 100}, "max_msgs"),
    Case({"max_age": 3600 * SECOND}, "max_age"),
    Case({"max_msg_size": 100}, "max_msg_size"),
    Case({"duplicate_window": SECOND}, "duplicate_window"),
    Case({"max_bytes": 2**20}, "max_bytes", is_used=True),
]

_HARMLESS: list[dict[str, Any]] = [
    {"subject_transform": {"src": "FILTER", "dest": "FILTER"}},
    {"subject_transform": {"src": "elsewhere.>", "dest": "moved.>"}},
    {"consumer_limits": {"max_ack_pending": 1}},
    {"consumer_limits": {"inactive_threshold": 60 * SECOND}},
    {"first_seq": 100},
    {"allow_atomic": True},
    {"metadata": {"team": "web"}},
]
HARMLESS = [
    *((kind, change) for kind in ("bucket", "counters") for change in _HARMLESS),
    ("bucket", {"deny_delete": False}),
    ("bucket", {"subject_delete_marker_ttl": SECOND}),
    ("bucket", {"allow_msg_schedules": True}),
    ("bucket", {"duplicate_window": SECOND}),
    ("counters", {"allow_rollup_hdrs": True}),
    ("counters", {"republish": {"src": ">", "dest": "heard.>"}}),
]
"""Changes of a bucket or of a stream of counters with which everything works."""


def make_foreign(
    api: Callable[[str, dict[str, Any]], dict[str, Any]],
    config: StreamConfig,
    change: dict[str, Any],
) -> dict[str, Any]:
    """Create the stream of a configuration with a change, and return its document.

    ``api`` sends a request to the JetStream API.
    """
    other = f"{config.stream}_other"
    wanted = {**config.stream_config(), **_named(change, config, other)}
    if "mirror" in change or "sources" in change:
        _create(api, {"name": other, "subjects": [f"{other}.>"], "allow_direct": True})
    if "mirror" in change:
        wanted = {name: wanted[name] for name in ("name", "mirror", "storage")}
    if change.get("sealed"):
        _create(api, {**wanted, "sealed": False})
        answer = api(f"STREAM.UPDATE.{config.stream}", wanted)
        assert "error" not in answer, answer
        return answer
    return _create(api, wanted)


def _create(
    api: Callable[[str, dict[str, Any]], dict[str, Any]], document: dict[str, Any]
) -> dict[str, Any]:
    answer = api(f"STREAM.CREATE.{document['name']}", document)
    assert "error" not in answer, answer
    return answer


def _named(value: Any, config: StreamConfig, other: str) -> Any:
    if isinstance(value, dict):
        return {name: _named(each, config, other) for name, each in value.items()}
    if isinstance(value, list):
        return [_named(each, config, other) for each in value]
    if isinstance(value, str):
        return value.replace("FILTER", config.subject_filter).replace("OTHER", other)
    return value
