"""The bytes: what a request looks like, what a reply says, and which error it carries.

Pure functions. Subjects and header names are those of the JetStream API (ADR-31 for direct gets,
ADR-43 for per-message TTL, ADR-8 for the key-value layout).
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from ..exceptions import (
    BucketFull,
    NoLeader,
    ServerError,
    Unreadable,
    ValueTooLarge,
    WrongRevision,
)

# The server closes a connection that sends a longer control line.
MAX_CONTROL_LINE = 4096
FORMAT_HEADER = "Django-Nats"
KEY_HEADER = "Django-Nats-Key"
MAX_TTL_SECONDS = 100 * 365 * 86400

_HEADER_START = b"NATS/1.0"
_EMPTY_HEADER = b"NATS/1.0\r\n\r\n"


class Reply(NamedTuple):
    """One message that answers a request; header is the raw block, empty when there is none."""

    header: bytes
    payload: bytes
    reply_to: bytes = b""
    subject: bytes = b""


class Message(NamedTuple):
    """A stored message, as a direct get, a batch get or the leader tells of it."""

    subject: bytes
    sequence: int
    header: bytes
    payload: bytes
    stamp: bytes
    """When the server stored it, RFC 3339 in UTC."""
    format: bytes | None = None
    """The raw value of the package's own header, where it is known that there is no more to it."""

    @property
    def deleted(self) -> bool:
        """Whether it is a tombstone, or a marker the server left for an expired message."""
        return is_tombstone(self.header)


# What a named tuple is made by, without the function that would first collect its arguments.
_message: Callable[[tuple[Any, ...]], Message] = partial(tuple.__new__, Message)
new_reply: Callable[[tuple[bytes, bytes, bytes, bytes]], Reply] = partial(tuple.__new__, Reply)


class Ack(NamedTuple):
    """The server's acknowledgement of a publish."""

    sequence: int
    duplicate: bool


_ack: Callable[[tuple[int, bool]], Ack] = partial(tuple.__new__, Ack)


def is_tombstone(header: bytes) -> bool:
    return b"\r\nKV-Operation: " in header or b"\r\nNats-Marker-Reason: " in header


# Requests ------------------------------------------------------------------------------------


def header_block(fields: Mapping[str, str]) -> bytes:
    """The block of header lines. Raises ValueError for a value that would begin another line."""
    for name, value in fields.items():
        if "\r" in value or "\n" in value:
            raise ValueError(f"A line break in the header {name}")
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"NATS/1.0\r\n{lines}\r\n".encode()


def publish_frame(subject: bytes, reply: bytes, header: bytes, payload: bytes) -> bytes:
    if header:
        size = len(header)
        return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (
            subject,
            reply,
            size,
            size + len(payload),
            header,
            payload,
        )
    return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)


def ttl_field(seconds: float | None) -> str:
    """Nats-TTL: whole seconds, at least one, rounded up; the exact expiry is the reader's part."""
    if seconds is None:
        return "never"
    return str(math.ceil(max(1, min(MAX_TTL_SECONDS, seconds))))


def compact_json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def quote_key(key: str) -> str:
    return quote(key, safe=":/")


def unquote_key(text: str) -> str:
    return unquote_to_bytes(text).decode("utf-8")


# Replies -------------------------------------------------------------------------------------


def status(reply: Reply) -> int:
    """The status the server answers with (404, 503, …), or 0 for an ordinary message."""
    header = reply.header
    # What another client stored may begin with a status too, but has what stored messages have:
    # a sequence, or a subject for its acknowledgement.
    if header[8:9] != b" " or reply.reply_to or _SEQUENCE in header:
        return 0
    try:
        return int(header[9:12])
    except ValueError:
        return 0


def field(header: bytes, name: str) -> str | None:
    """The last value of a header field: what the server appends comes after what a writer wrote,
    so that nobody who can write a message can speak for the server."""
    needle = b"\r\n%b: " % name.encode()
    start = header.rfind(needle)
    if start < 0:
        return None
    start += len(needle)
    return header[start : header.find(b"\r\n", start)].decode("utf-8", "replace")


_SEQUENCE = b"\r\nNats-Sequence: "
_SUBJECT = b"\r\nNats-Subject: "
# All that a value of this package has, with what the server appends, and nothing besides.
_PLAIN = re.compile(
    rb"NATS/1\.0\r\nDjango-Nats: ([^\r]+)\r\nNats-TTL: [^\r]+\r\nNats-Stream: [^\r]+"
    rb"\r\nNats-Subject: ([^\r]+)\r\nNats-Sequence: ([0-9]+)\r\nNats-Time-Stamp: ([^\r]+)\r\n"
    rb"(?:Nats-Num-Pending: [0-9]+\r\nNats-Last-Sequence: [0-9]+\r\n)?\r\n"
)
_STORED = re.compile(
    rb"\r\nNats-Subject: ([^\r]+)\r\nNats-Sequence: ([0-9]+)\r\nNats-Time-Stamp: ([^\r]+)\r"
)
_FORMAT = b"\r\n%b: " % FORMAT_HEADER.encode()


def _raw(header: bytes, needle: bytes) -> bytes:
    start = header.rfind(needle)
    if start < 0:
        return b""
    start += len(needle)
    return header[start : header.find(b"\r\n", start)]


def format_field(header: bytes) -> bytes:
    """The raw value of the package's own header, empty for a value of another client."""
    return _raw(header, _FORMAT)


def pending(header: bytes) -> int:
    """How many messages of a batch get are still to come after this one."""
    return int(_raw(header, b"\r\nNats-Num-Pending: ") or 0)


def parse_direct(reply: Reply) -> Message | None:
    """The message of a direct or batch get; None when there is none, and at a batch's end.

    Raises NoLeader when nobody answers for the stream.
    """
    header, payload, _, _ = reply
    plain = _PLAIN.fullmatch(header)
    if plain is not None:
        format, subject, sequence, stamp = plain.groups()
        return _message((subject, int(sequence), header, payload, stamp, format))
    # From the last of these fields: those that the server appends, not a writer's.
    stored = _STORED.match(header, max(0, header.rfind(_SUBJECT)))
    if stored is None:
        code = status(reply)
        if code in (204, 404):
            return None
        raise status_error(code, header)
    return Message(stored[1], int(stored[2]), header, payload, stored[3])


def parse_leader(reply: Reply) -> Message | None:
    """The message of a STREAM.MSG.GET, which only the stream's leader answers; None for none."""
    try:
        message = parse_api(reply)["message"]
    except ServerError as error:
        if error.err_code == 10037:
            return None
        raise
    return Message(
        message["subject"].encode(),
        message["seq"],
        base64.b64decode(message.get("hdrs", "")),
        base64.b64decode(message.get("data", "")),
        message["time"].encode(),
    )


_ACK = re.compile(rb'\{"stream":"[^"]*", *(?:"domain":"[^"]*", *)?"seq": *(\d+)\}')


def parse_ack(reply: Reply) -> Ack:
    """The acknowledgement of a publish. Raises the error the server answered with."""
    match = _ACK.fullmatch(reply.payload)
    if match:
        return _ack((int(match[1]), False))
    answer = parse_api(reply)
    return Ack(answer["seq"], answer.get("duplicate", False))


def parse_api(reply: Reply) -> dict[str, Any]:
    """The document of an API reply. Raises the error it carries."""
    code = status(reply)
    if code:
        raise status_error(code, reply.header)
    try:
        document = json.loads(reply.payload)
    except ValueError as error:
        raise ServerError("The server answered with something that is not JSON") from error
    if "error" in document:
        raise api_error(document["error"])
    return dict(document)


def is_without_stream(reply: Reply) -> bool:
    """Whether a reply shows that nobody answers for the stream, or that it does not exist."""
    if reply.header:
        return status(reply) == 503
    # Replies of the API and acknowledgements have no header; stored values always have one.
    # Not "in", which takes eight times as long: it tries first whether this is an int.
    return reply.payload.find(_STREAM_NOT_FOUND) >= 0


def answers_for_stream(reply: Reply) -> bool:
    """Whether a reply shows that somebody answers for the stream, be it with a no."""
    code = status(reply)
    if code:
        return code == 404
    try:
        parse_api(reply)
    except NoLeader:
        return False
    except ServerError:
        return True
    return True


def status_error(code: int, header: bytes) -> ServerError:
    if code == 503:
        return NoLeader(
            "Nobody answers for the stream: it does not exist, or has no leader at the moment",
            code=503,
        )
    line = header[9 : header.find(b"\r\n")].decode("utf-8", "replace")
    return ServerError(f"The server refused the request: {line}", code=code)


# Codes of nats-server's errors.json.
STREAM_NOT_FOUND = 10059
_STREAM_NOT_FOUND = b'"err_code":%d' % STREAM_NOT_FOUND
STREAM_NAME_IN_USE = 10058
SAME_ID_IN_FLIGHT = 10158
WRITE_IN_FLIGHT = 10164
_ERRORS: dict[int, type[ServerError]] = {
    10071: WrongRevision,
    WRITE_IN_FLIGHT: WrongRevision,
    10077: BucketFull,
    10023: BucketFull,
    10028: BucketFull,
    10047: BucketFull,
    10008: NoLeader,
    10009: NoLeader,
    10118: NoLeader,
}


def api_error(error: Mapping[str, Any]) -> Exception:
    err_code = error.get("err_code", 0)
    description = error.get("description", "no description")
    if err_code == 10054:
        return ValueTooLarge("The server refused the value: it is over the bucket's limit")
    kind = _ERRORS.get(err_code, ServerError)
    message = f"The server refused the request: {description} ({err_code})"
    return kind(message, code=error.get("code", 0), err_code=err_code)


# Time ----------------------------------------------------------------------------------------


def epoch(stamp: bytes) -> float:
    """Seconds since 1970 of an RFC 3339 time in UTC, to the microsecond."""
    try:
        return _minute(stamp[:17]) + float(stamp[17:-1])
    except ValueError as error:
        raise Unreadable(f"Not a time: {stamp!r}") from error


@lru_cache(maxsize=4096)
def _minute(stamp: bytes) -> float:
    return datetime.fromisoformat(stamp.decode("ascii") + "00+00:00").timestamp()
