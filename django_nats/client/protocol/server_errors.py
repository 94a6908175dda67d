"""nats-server's numbers for errors: the exception that each becomes, and what to do about it.

The numbers are those of nats-server's errors.json, up to 10227. A number that is not in ERRORS
means that code, settings or the stream must be changed: it becomes a plain ServerError.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...exceptions import (
    BucketFull,
    LimitReached,
    NatsError,
    NoLeader,
    NotServed,
    ServerError,
    ValueTooLarge,
    WrongRevision,
)
from ...printable import printable

MAX_QUOTED = 200
"""Bytes or characters of the server's own text that an error quotes."""

ACCOUNT_FULL = 10002
NO_PEERS = 10005
"""Too few servers of the cluster are there to store a stream's replicas."""
NO_LEADER, NOT_THE_LEADER = 10008, 10009
SERVER_FULL = 10023
MAX_CONSUMERS, MAX_STREAMS = 10026, 10027
MEMORY_RESERVED = 10028
NO_MESSAGE = 10037
NOT_ENABLED_FOR_ACCOUNT = 10039
STORAGE_RESERVED = 10047
VALUE_TOO_LARGE = 10054
STREAM_NAME_IN_USE = 10058
STREAM_NOT_FOUND = 10059
WRONG_SEQUENCE = 10071
NOT_CLUSTERED = 10074
NOT_ENABLED = 10076
STORE_FAILED = 10077
"""The stream is full, or its store has failed: the description says which."""
STREAM_INVALID = 10096
MAX_BYTES_REQUIRED, MAX_BYTES_TOO_LARGE = 10113, 10122
STREAM_OFFLINE, STREAM_UNSUPPORTED = 10118, 10194
CONSUMER_OFFLINE, CONSUMER_UNSUPPORTED = 10119, 10195
NO_LIMITS = 10120
SAME_ID_IN_FLIGHT = 10158
SEQUENCE_NOT_READY = 10163
WRITE_IN_FLIGHT = 10164
TOO_MANY_REQUESTS = 10167

ERRORS: Mapping[int, type[ServerError]] = {
    WRONG_SEQUENCE: WrongRevision,
    WRITE_IN_FLIGHT: WrongRevision,
    # No room. Reads, deletes and purges still work, so the old value must be discarded.
    ACCOUNT_FULL: BucketFull,
    SERVER_FULL: BucketFull,
    MEMORY_RESERVED: BucketFull,
    STORAGE_RESERVED: BucketFull,
    STORE_FAILED: BucketFull,
    # An election, or a restart of the servers that store the stream. It ends by itself.
    NO_LEADER: NoLeader,
    NOT_THE_LEADER: NoLeader,
    STREAM_OFFLINE: NoLeader,
    CONSUMER_OFFLINE: NoLeader,
    # States of the account, the server or the cluster that operators change.
    NO_PEERS: NotServed,
    10007: NotServed,  # the cluster is not assigned to this server
    10035: NotServed,  # the account is not known to this server
    NOT_ENABLED_FOR_ACCOUNT: NotServed,
    NOT_ENABLED: NotServed,
    STREAM_INVALID: NotServed,
    NO_LIMITS: NotServed,
    SEQUENCE_NOT_READY: NotServed,
    TOO_MANY_REQUESTS: NotServed,
    STREAM_UNSUPPORTED: NotServed,
    CONSUMER_UNSUPPORTED: NotServed,
    MAX_CONSUMERS: LimitReached,
    MAX_STREAMS: LimitReached,
}

_SINGLE = frozenset({NO_LIMITS, SEQUENCE_NOT_READY, TOO_MANY_REQUESTS})

_UPGRADE = (
    "A newer version of nats-server has written it, or uses features of it: run that version on "
    "all servers of the cluster."
)
NOT_ENABLED_HINT = (
    "Start nats-server with -js, or with `jetstream {}` in its configuration, and enable it for "
    "the account if the server has accounts. If the server has switched it off by itself, as when "
    "its disk is full, its log says so."
)
_ADVICE: Mapping[int, str] = {
    NO_PEERS: "Start the servers that are down, or correct REPLICAS or PLACEMENT.",
    MAX_CONSUMERS: (
        "Each listing of keys, each near cache and each watch() takes a consumer: raise "
        "max_consumers of the account or of the stream."
    ),
    MAX_STREAMS: "Raise max_streams of the account, or delete a stream that is not needed.",
    NOT_ENABLED_FOR_ACCOUNT: (
        "Enable JetStream for the account (`jetstream: enabled`), or log in to one that has it."
    ),
    NOT_CLUSTERED: "Set REPLICAS to 1, or run a cluster.",
    NOT_ENABLED: NOT_ENABLED_HINT,
    MAX_BYTES_REQUIRED: "Set MAX_BYTES.",
    MAX_BYTES_TOO_LARGE: (
        "Lower MAX_BYTES, or raise the account's limit for one stream (mem_max_stream_bytes, "
        "disk_max_stream_bytes)."
    ),
    STREAM_OFFLINE: "Start the servers that store it.",
    CONSUMER_OFFLINE: "Start the servers that store the stream.",
    NO_LIMITS: "Give the account JetStream limits that allow this number of replicas.",
    STREAM_UNSUPPORTED: _UPGRADE,
    CONSUMER_UNSUPPORTED: _UPGRADE,
    TOO_MANY_REQUESTS: "The stream gets more writes at once than its server can store.",
}


def error_of(error: Mapping[str, Any]) -> ServerError | ValueTooLarge:
    """Return the exception for the error in a reply of JetStream."""
    err_code = error.get("err_code", 0)
    if err_code == VALUE_TOO_LARGE:
        return ValueTooLarge("The server refused the value: it is over the bucket's limit")
    description = printable(error.get("description", "no description")[:MAX_QUOTED])
    message = f"The server refused the request: {description} ({err_code})"
    if err_code in _ADVICE:
        message += f". {_ADVICE[err_code]}"
    kind = ERRORS.get(err_code, ServerError)
    return kind(message, code=error.get("code", 0), err_code=err_code)


def is_single(error: NatsError) -> bool:
    """Return True if an outage concerns one request, while the stream serves others."""
    if isinstance(error, LimitReached):
        return error.err_code != MAX_STREAMS
    return isinstance(error, ServerError) and error.err_code in _SINGLE


def reworded(refusal: ServerError, message: str) -> ServerError:
    """Return an error of the same class and with the same numbers, and with another message."""
    other = type(refusal)(message, code=refusal.code, err_code=refusal.err_code)
    other.__cause__ = refusal
    return other
