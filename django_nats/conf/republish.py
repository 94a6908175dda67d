"""Read REPUBLISH, which has the server publish again what it stores in a bucket."""

from __future__ import annotations

import re
from typing import TypeGuard

from ..client.kv.config import Republish
from .reader import Reader

MEMBERS = {"src", "dest", "headers_only"}
_PART = r"(?:\{\{[^{}.]+\}\}|[^\s.\x00-\x20\x7f]+)"  # {{ a mapping function }}, or plain text
_SUBJECT = re.compile(rf"{_PART}(?:\.{_PART})*")
_OF_THE_SERVER = ("$JS", "$SYS", "_INBOX")


def read_republish(reader: Reader, subjects: str) -> Republish:
    """Return what REPUBLISH says for a bucket with these subjects.

    Raises ImproperlyConfigured if it is not valid.
    """
    members = reader.mapping("REPUBLISH", MEMBERS)
    src, dest = members.get("src", subjects), members.get("dest")
    headers_only = members.get("headers_only", False)
    if not isinstance(headers_only, bool):
        reader.fail("REPUBLISH", f"has headers_only {headers_only!r}; it must be True or False")
    if not _is_subject(src):
        reader.fail("REPUBLISH", f"has src {src!r}, which is not a NATS subject")
    if not _overlap(src, subjects):
        reader.fail("REPUBLISH", f"has src {src!r}, but the bucket's subjects are {subjects}")
    if not _is_subject(dest):
        reader.fail("REPUBLISH", f'has dest {dest!r}; it must be a NATS subject, like "changes.>"')
    if _overlap(dest, subjects):
        reader.fail(
            "REPUBLISH",
            f"has dest {dest!r}, but the bucket would store again what comes to {subjects}, "
            "without end",
        )
    if dest.split(".")[0] in ("*", ">", *_OF_THE_SERVER):
        reader.fail(
            "REPUBLISH",
            f"has dest {dest!r}; it must begin with a name that is none of the server's own "
            f"({', '.join(_OF_THE_SERVER)})",
        )
    if src.endswith(">") != dest.endswith(">"):
        reader.fail(
            "REPUBLISH", f"has src {src!r} and dest {dest!r}; both must end with >, or neither"
        )
    return Republish(src, dest, headers_only)


def _is_subject(value: object) -> TypeGuard[str]:
    if not isinstance(value, str) or not _SUBJECT.fullmatch(value):
        return False
    return ">" not in value.split(".")[:-1]


def _overlap(one: str, other: str) -> bool:
    """Return True if there are subjects that match both filters."""
    first, second = one.split("."), other.split(".")
    for left, right in zip(first, second, strict=False):
        if ">" in (left, right):
            return True
        if left != right and "*" not in (left, right):
            return False
    return len(first) == len(second)
