"""The bytes of requests and replies.

Pure functions. Subjects and header names are those of the JetStream API (ADR-31 for direct gets,
ADR-43 for per-message TTL, ADR-8 for the key-value layout).
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from ...exceptions import NatsError, NoLeader, ServerError, UnexpectedReply
from ...printable import printable
from . import documents
from .server_errors import (
    MAX_QUOTED,
    NO_LEADER,
    NO_MESSAGE,
    NOT_THE_LEADER,
    STREAM_NOT_FOUND,
    error_of,
)

MAX_CONTROL_LINE_BYTES = 4096
"""The server closes a connection that sends a longer control line."""
FORMAT_HEADER = "Django-Nats"
KEY_HEADER = "Django-Nats-Key"
MAX_TTL_SECONDS = 100 * 365 * 86400


class Reply(NamedTuple):
    """One message that answers a request.

    ``header`` is the raw block of header lines, empty if the message has none.
    """

    header: bytes
    payload: bytes
    reply_to: bytes = b""
    subject: bytes = b""


class Message(NamedTuple):
    """A stored message, as read by a direct get, a batch get, or from the stream's leader."""

    subject: bytes
    sequence: int
    header: bytes
    payload: bytes
    stamp: bytes
    """When the server stored it, as RFC 3339 text in UTC."""
    format: bytes | None = None
    """The raw value of FORMAT_HEADER, if the writer is known to have set only it and Nats-TTL."""

    @property
    def deleted(self) -> bool:
        """Return True for a tombstone, and for the server's marker of an expired message."""
        return is_tombstone(self.header)


# These make named tuples without the call of __new__, which would first collect its arguments.
_message: Callable[[tuple[Any, ...]], Message] = partial(tuple.__new__, Message)
new_reply: Callable[[tuple[bytes, bytes, bytes, bytes]], Reply] = partial(tuple.__new__, Reply)


class Ack(NamedTuple):
    """The server's acknowledgement of a publish."""

    sequence: int
    duplicate: bool


_ack: Callable[[tuple[int, bool]], Ack] = partial(tuple.__new__, Ack)


def is_tombstone(header: bytes) -> bool:
    """Return True if a header marks a key as deleted or expired."""
    return b"\r\nKV-Operation:" in header or b"\r\nNats-Marker-Reason:" in header


# Requests ------------------------------------------------------------------------------------


def header_block(fields: Mapping[str, str]) -> bytes:
    """Return the block of header lines. Raise ValueError if a value has a line break."""
    for name, value in fields.items():
        if "\r" in value or "\n" in value:
            raise ValueError(f"A line break in the header {name}")
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"NATS/1.0\r\n{lines}\r\n".encode()


def extended(block: bytes, lines: str) -> bytes:
    """Return a block of header lines with further ones, which are trusted to be well-formed."""
    return block[:-2] + lines.encode() + b"\r\n"


def publish_frame(subject: bytes, reply: bytes, header: bytes, payload: bytes) -> bytes:
    """Return the bytes that publish a message whose answer comes in on the subject ``reply``."""
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


def publish_frames(
    subjects: Iterable[bytes],
    replies: Iterable[bytes],
    headers: Iterable[bytes],
    payloads: Iterable[bytes],
) -> list[bytes]:
    """Return the bytes that publish many messages, each with a header."""
    # The format is that of publish_frame(). Calling it for each would take a third longer.
    return [
        b"HPUB %b %b %d %d\r\n%b%b\r\n"
        % (subject, reply, len(header), len(header) + len(payload), header, payload)
        for subject, reply, header, payload in zip(
            subjects, replies, headers, payloads, strict=True
        )
    ]


def ttl_field(seconds: float | None) -> str:
    """Return the value of Nats-TTL: whole seconds, rounded up, at least 1 and at most 100 years.

    None means that the message does not expire. Readers know the exact expiry from the package's
    own header.
    """
    if seconds is None:
        return "never"
    return str(math.ceil(max(1, min(MAX_TTL_SECONDS, seconds))))


def compact_json(document: Mapping[str, Any]) -> bytes:
    """Return a document as JSON without spaces."""
    return json.dumps(document, separators=(",", ":")).encode()


def quote_key(key: str) -> str:
    """Return a key as ASCII text that a header may hold."""
    return quote(key, safe=":/")


def unquote_key(text: str) -> str:
    """Return the key that quote_key() has quoted.

    Raise UnicodeDecodeError if the bytes are not UTF-8.
    """
    return unquote_to_bytes(text).decode("utf-8")


# Replies -------------------------------------------------------------------------------------


ODD_STATUS = -1
"""What status() returns for a status line that is not valid."""


def status(reply: Reply) -> int:
    """Return the status that the server answers with (404, 503, …), or 0 for a message.

    Return ODD_STATUS for a status line that is not valid.
    """
    header = reply.header
    # A message that another client stored may begin with a status, too. It then has what only
    # stored messages have: a sequence, or a subject for its acknowledgement.
    if header[8:9] != b" " or reply.reply_to or _SEQUENCE in header:
        return 0
    code = header[9:12]
    if len(code) == 3 and code.isdigit() and header[12:13] in _AFTER_CODE:
        return int(code)
    return ODD_STATUS


def field(header: bytes, name: str) -> str | None:
    """Return the last value of a header field, or None.

    The server appends its fields to those of the writer. Since the last value counts, no writer
    can pass off a field as the server's. As for the server, the blank after the colon is optional:
    the Java client writes none.
    """
    needle = b"\r\n%b:" % name.encode()
    return _raw(header, needle).decode("utf-8", "replace") if needle in header else None


_AFTER_CODE = (b" ", b"\r")
_TOO_MANY_REQUESTS = 429
_SEQUENCE = b"\r\nNats-Sequence: "
_SUBJECT = b"\r\nNats-Subject: "
PLAIN_HEADER = (
    rb"NATS/1\.0\r\nDjango-Nats: ([^\r]+)\r\nNats-TTL: [^\r]+"
    rb"(?:\r\nNats-Expected-Last-Subject-Sequence: [^\r]+\r\nNats-Msg-Id: [^\r]+)?"
    rb"\r\nNats-Stream: [^\r]+\r\nNats-Subject: ([^\r]+)\r\nNats-Sequence: ([1-9][0-9]{0,18})"
    rb"\r\nNats-Time-Stamp: ([0-9T:-]{19}(?:\.[0-9]{1,9})?Z)\r\n"
    rb"(?:Nats-Num-Pending: [0-9]+\r\nNats-Last-Sequence: [0-9]+\r\n)?\r\n"
)
"""The whole header of a value that this package wrote, on a condition or not, with the fields that
the server appends.

It is a regular expression. Its groups are the format, subject, sequence and time stamp.
"""
match_plain = re.compile(PLAIN_HEADER).fullmatch
_STORED = re.compile(
    rb"\r\nNats-Subject: ([^\r]+)\r\nNats-Sequence: ([0-9]+)\r\nNats-Time-Stamp: ([^\r]+)\r"
)
_FORMAT = b"\r\n%b:" % FORMAT_HEADER.encode()


def _raw(header: bytes, needle: bytes) -> bytes:
    start = header.rfind(needle)
    if start < 0:
        return b""
    start += len(needle)
    return header[start : header.find(b"\r\n", start)].removeprefix(b" ")


def format_field(header: bytes) -> bytes:
    """Return the raw value of FORMAT_HEADER, empty for a value that another client wrote."""
    return _raw(header, _FORMAT)


def pending(header: bytes) -> int:
    """Return how many messages of a batch get follow after this one."""
    return count_field(header, "Nats-Num-Pending") or 0


def count_field(header: bytes, name: str) -> int | None:
    """Return the number in a header field, or None if there is no such field.

    Raise UnexpectedReply if the field is not a decimal number of at most 64 bits.
    """
    digits = _raw(header, b"\r\n%b:" % name.encode())
    return count_of(digits, name) if digits else None


def subject_field(header: bytes, name: str) -> bytes | None:
    """Return the subject in a header field, or None if there is no such field.

    Raise UnexpectedReply if it would not be one word of a control line.
    """
    subject = _raw(header, b"\r\n%b:" % name.encode())
    if subject and not _SUBJECT_WORD.fullmatch(subject):
        raise UnexpectedReply(f"{name} is not a subject")
    return subject or None


_SUBJECT_WORD = re.compile(rb"[!-~]{1,1024}")


def count_of(digits: bytes, what: str) -> int:
    """Return a decimal number of at most 64 bits. Raise UnexpectedReply for anything else.

    ``what`` names the number in errors.
    """
    # int() takes long for very many digits, or refuses them.
    if digits.isdigit() and len(digits) <= _MAX_DIGITS:
        number = int(digits)
        if number < 1 << 64:
            return number
    raise UnexpectedReply(f"{what} is not a number of at most 64 bits: {digits[:24]!r}")


_MAX_DIGITS = 20


def parse_direct(reply: Reply) -> Message | None:
    """Return the message of a direct or batch get, or None: no such message, or a batch's end.

    Raise NoLeader if no server answers for the stream, and UnexpectedReply if the reply is not
    valid. The caller checks whether the message is one that it asked for.
    """
    header, payload, _, _ = reply
    plain = match_plain(header)
    if plain is not None:
        format, subject, sequence, stamp = plain.groups()
        return _message((subject, int(sequence), header, payload, stamp, format))
    # From the last Nats-Subject on, which is the server's. A writer's come before it.
    stored = _STORED.match(header, max(0, header.rfind(_SUBJECT)))
    if stored is None:
        code = status(reply)
        if code in (204, 404):
            return None
        raise status_error(code, header)
    sequence = count_of(stored[2], "Nats-Sequence")
    if not sequence:
        raise UnexpectedReply("The server sent a stored message with the sequence 0")
    return Message(stored[1], sequence, header, payload, stored[3])


def parse_leader(reply: Reply) -> Message | None:
    """Return the message of a STREAM.MSG.GET, or None if there is none.

    Only the stream's leader answers this request. Raise UnexpectedReply if the answer is not
    valid, and otherwise the error that it carries.
    """
    try:
        message = parse_api(reply, documents.STORED_MESSAGE)["message"]
    except ServerError as error:
        if error.err_code == NO_MESSAGE:
            return None
        raise
    return Message(
        message["subject"].encode(),
        message["seq"],
        _decoded(message, "hdrs"),
        _decoded(message, "data"),
        message["time"].encode(),
    )


def _decoded(message: Mapping[str, str], name: str) -> bytes:
    try:
        return base64.b64decode(message.get(name, ""), validate=True)
    except ValueError:
        raise UnexpectedReply(f"The field {name} of a stored message is not base64") from None


_ACK = re.compile(rb'\{"stream":"([^"]*)", *(?:"domain":"[^"]*", *)?"seq": *([1-9][0-9]{0,18})\}')


def plain_ack(payload: bytes, stream: bytes) -> int:
    """Return the sequence in an acknowledgement by a stream, or 0 if it says more than that."""
    match = _ACK.fullmatch(payload)
    return int(match[2]) if match is not None and match[1] == stream else 0


def parse_ack(reply: Reply, stream: bytes) -> Ack:
    """Return a stream's acknowledgement of a publish.

    Raise the error that the server answered with, and UnexpectedReply if the answer is not an
    acknowledgement or is another stream's.
    """
    sequence = plain_ack(reply.payload, stream)
    if sequence:
        return _ack((sequence, False))
    answer = parse_api(reply, documents.ACKNOWLEDGEMENT)
    if answer["stream"].encode() != stream:
        raise UnexpectedReply(
            f"A message for the stream {stream.decode()} was acknowledged by another stream"
        )
    return Ack(answer["seq"], answer.get("duplicate", False))


def domain_of(acknowledgement: Reply) -> bytes | None:
    """Return the JetStream domain that has stored a message; None if its servers have none."""
    domain: str | None = parse_api(acknowledgement, documents.ACKNOWLEDGEMENT).get("domain")
    return None if domain is None else domain.encode()


def parse_api(reply: Reply, shape: documents.Shape = documents.ANYTHING) -> dict[str, Any]:
    """Return the document of an API reply.

    Raise the error that it carries, and UnexpectedReply if it does not have the shape.
    """
    code = status(reply)
    # A refusal for too much to do has a payload as well, which names the error.
    if code and not (code == _TOO_MANY_REQUESTS and reply.payload):
        raise status_error(code, reply.header)
    document = documents.read(reply.payload, "the answer of JetStream's API", documents.ERROR)
    if "error" in document:
        raise error_of(document["error"])
    if code:
        raise status_error(code, reply.header)
    documents.require(document, "the answer of JetStream's API", shape)
    return document


def is_without_stream(reply: Reply) -> bool:
    """Return True if the request reached no stream: none exists, or it has no leader now."""
    if reply.header:
        return status(reply) == 503
    # Replies of the API and acknowledgements have no header. Stored values always have one.
    # find() and not "in", which takes eight times as long: "in" first tries to use it as an int.
    return reply.payload.find(_NOWHERE_START) >= 0 and _NOWHERE.search(reply.payload) is not None


def answers_for_stream(reply: Reply) -> bool:
    """Return True if a reply shows that a server answers for the stream, if only by an error."""
    code = status(reply)
    if code or _SEQUENCE in reply.header:
        return code in (0, 404, _TOO_MANY_REQUESTS)
    try:
        parse_api(reply)
    except (NoLeader, UnexpectedReply):
        return False
    except NatsError:
        return True
    return True


def status_error(code: int, header: bytes) -> ServerError | UnexpectedReply:
    """Return the error for a status that came in place of an answer."""
    if code == 503:
        return NoLeader(
            "No server answers for the stream: it does not exist, or has no leader at the moment",
            code=503,
        )
    line = printable(header[9 : header.find(b"\r\n")][:MAX_QUOTED].decode("utf-8", "replace"))
    if not 400 <= code < 600:
        return UnexpectedReply(
            f"The server answered with a status in place of a message: {line!r}"
            if code
            else "The server answered with a message that has neither a sequence nor a status"
        )
    return ServerError(f"The server refused the request: {line}", code=code)


_NOWHERE_START = b'"err_code":100'
_NOWHERE = re.compile(b'"err_code":(?:%d|%d|%d)\\b' % (STREAM_NOT_FOUND, NO_LEADER, NOT_THE_LEADER))
