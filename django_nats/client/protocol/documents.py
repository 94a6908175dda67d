"""The JSON documents that the server answers with, and the fields that each must have.

Every field that other modules read is named in a shape here. They need not check it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ...exceptions import UnexpectedReply
from .timestamps import epoch

Shape: TypeAlias = "Mapping[str, Callable[[Any], bool] | Shape | list[Shape]]"
"""What each field must be: a check, an object of a shape, or a list of objects of a shape.

A field whose name ends in ``?`` may be missing.
"""


def read(payload: bytes, what: str, shape: Shape) -> dict[str, Any]:
    """Return the JSON object of a payload.

    ``what`` names the object in errors, for example "the answer". Raise UnexpectedReply, with
    the name of the field at fault, if the object does not have the shape.
    """
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError) as error:
        # Without the parser's message, which may hold the whole document.
        raise _unexpected(what, f"is not valid JSON ({type(error).__name__})") from None
    require(document, what, shape)
    return document  # type: ignore[no-any-return]


def require(document: object, what: str, shape: Shape) -> None:
    """Raise UnexpectedReply, with the name of the field at fault, unless a document has a shape.

    ``what`` names the document in errors.
    """
    if not isinstance(document, dict):
        raise _unexpected(what, f"is {_describe(document)}, not an object")
    for name, expected in shape.items():
        field = name.removesuffix("?")
        if field in document:
            _require(document[field], f"the field {field} of {what}", expected)
        elif field == name:
            raise _unexpected(what, f"lacks the field {field}")


def _require(value: Any, what: str, expected: Callable[[Any], bool] | Shape | list[Shape]) -> None:
    if callable(expected):
        if not expected(value):
            raise _unexpected(what, f"is {_describe(value)}")
    elif isinstance(expected, list):
        if value is None:  # Go writes null for a list that was never made
            return
        if not isinstance(value, list):
            raise _unexpected(what, f"is {_describe(value)}, not a list")
        for each in value:
            require(each, f"a member of {what}", expected[0])
    else:
        require(value, what, expected)


def _unexpected(what: str, problem: str) -> UnexpectedReply:
    return UnexpectedReply(f"{what[0].upper()}{what[1:]} {problem}")


def _describe(value: object) -> str:
    """Describe a value for an error, without its text, which may be a user's."""
    if value is None or isinstance(value, (bool, float)):
        return json.dumps(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 1 << 80 else "an integer that is far too large"
    kinds: dict[type, str] = {str: "a text", list: "a list", dict: "an object"}
    return f"{kinds[type(value)]} that does not fit"


# Checks of single fields ---------------------------------------------------------------------


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 64


def _is_sequence(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 64


def _is_limit(value: Any) -> bool:
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 31


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False  # half of a surrogate pair


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable() and len(value) <= 64


def _is_texts(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(map(_is_text, value)))


def _is_labels(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _is_names(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value))


def _is_time(value: Any) -> bool:
    try:
        return _is_text(value) and epoch(value.encode()) >= 0
    except UnexpectedReply:
        return False


# Shapes, as nats-server documents them -------------------------------------------------------

ANYTHING: Shape = {}
ERROR: Shape = {"error?": {"code?": _is_limit, "err_code?": _is_limit, "description?": _is_text}}
ACKNOWLEDGEMENT: Shape = {
    "stream": _is_text,
    "seq": _is_sequence,
    "domain?": _is_text,
    "duplicate?": _is_flag,
}
STORED_MESSAGE: Shape = {
    "message": {
        "subject": _is_text,
        "seq": _is_sequence,
        "hdrs?": _is_text,
        "data?": _is_text,
        "time": _is_time,
    }
}
PURGED: Shape = {"purged": _is_count}
CONSUMER: Shape = {"name?": _is_text, "num_pending?": _is_count}
NEW_CONSUMER: Shape = {"delivered": {"stream_seq": _is_count}}
ACCOUNT: Shape = {"api": {"level?": _is_count}}
_EXTERNAL: Shape = {"api?": _is_text}
_STREAM_CONFIG: Shape = {
    "name": _is_text,
    "subjects?": _is_texts,
    "storage": _is_text,
    "num_replicas": _is_count,
    "max_msgs_per_subject?": _is_limit,
    "max_msgs?": _is_limit,
    "max_bytes?": _is_limit,
    "max_msg_size?": _is_limit,
    "max_age?": _is_limit,
    "duplicate_window?": _is_limit,
    "max_consumers?": _is_limit,
    "subject_delete_marker_ttl?": _is_limit,
    "consumer_limits?": {"inactive_threshold?": _is_limit},
    "subject_transform?": {"src?": _is_text, "dest?": _is_text},
    "mirror?": {"name": _is_text, "external?": _EXTERNAL},
    "metadata?": _is_labels,
    "sources?": [
        {
            "name": _is_text,
            "external?": _EXTERNAL,
            "subject_transforms?": [{"src": _is_text, "dest": _is_text}],
        }
    ],
}
STREAM: Shape = {
    "config": _STREAM_CONFIG,
    "state": {
        "last_seq": _is_count,
        "messages": _is_count,
        "bytes": _is_count,
        "num_subjects?": _is_count,
    },
    "created": _is_text,
    "domain?": _is_text,
    "ts": _is_time,
    "sources?": [
        {
            "name": _is_text,
            "active": _is_limit,
            "lag?": _is_count,
            "external?": _EXTERNAL,
            "error?": {"description?": _is_text},
        }
    ],
}
SUBJECTS: Shape = {"total?": _is_count, "state": {"subjects?": _is_names}}
"""A page of the subjects that match a filter, in the answer about their stream."""
_SERVER: Shape = {"version?": _is_word, "nonce?": _is_text, "connect_urls?": _is_texts}
GREETING: Shape = {**_SERVER, "max_payload": _is_size}
"""The INFO with which the server begins a connection."""
SERVER_CHANGED: Shape = {**_SERVER, "max_payload?": _is_size}
"""A later INFO, which need not repeat every field."""
