from __future__ import annotations

import base64
import json
import math
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_nats.client import bridge, wire
from django_nats.client.steps import Request, Steps
from django_nats.client.wire import Reply
from django_nats.exceptions import (
    BucketFull,
    NoLeader,
    ServerError,
    Unreadable,
    ValueTooLarge,
    WrongRevision,
)
from tests.conftest import MakeCache

STORED = (
    b"NATS/1.0\r\nDjango-Nats: pickle;ms=300000\r\nNats-TTL: 300\r\nNats-Stream: KV_b\r\n"
    b"Nats-Subject: $KV.b.=.1.k\r\nNats-Sequence: 7\r\n"
    b"Nats-Time-Stamp: 2026-01-02T03:04:05.678901234Z\r\n\r\n"
)
names = st.text("abcdefghijklmnopqrstuvwxyzABC-", min_size=1)
values = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"))


def api_reply(document: object) -> Reply:
    return Reply(b"", json.dumps(document, separators=(",", ":")).encode())


# Requests ------------------------------------------------------------------------------------


def test_a_frame_announces_its_sizes() -> None:
    assert (
        wire.publish_frame(b"a.b", b"_INBOX.1", b"", b"four") == b"PUB a.b _INBOX.1 4\r\nfour\r\n"
    )
    header = wire.header_block({"Nats-TTL": "5"})
    assert header == b"NATS/1.0\r\nNats-TTL: 5\r\n\r\n"
    assert wire.publish_frame(b"a", b"r", header, b"four") == (
        b"HPUB a r %d %d\r\n" % (len(header), len(header) + 4) + header + b"four\r\n"
    )


@given(st.dictionaries(names, values, min_size=1), st.data())
def test_what_is_written_in_a_header_is_read_from_it(
    fields: dict[str, str], data: st.DataObject
) -> None:
    header = wire.header_block(fields)
    name = data.draw(st.sampled_from(sorted(fields)))
    assert wire.field(header, name) == fields[name]
    assert wire.field(header, name + "-absent") is None


@given(st.text())
def test_a_key_in_a_header_stays_on_its_line(key: str) -> None:
    try:
        quoted = wire.quote_key(key)
    except UnicodeEncodeError:
        return  # a lone surrogate, which keys.py refuses before
    assert quoted.isascii()
    assert quoted.isprintable()
    assert wire.unquote_key(quoted) == key


@given(st.floats(min_value=0, exclude_min=True, allow_nan=False))
@example(math.inf)
@example(1e-300)
@example(300)
def test_the_server_keeps_a_value_at_least_as_long_as_its_timeout(seconds: float) -> None:
    kept = int(wire.ttl_field(seconds))
    assert 1 <= kept <= wire.MAX_TTL_SECONDS
    assert kept >= min(seconds, wire.MAX_TTL_SECONDS)
    assert kept < max(seconds, 0.01) + 1


@pytest.mark.parametrize(
    ("seconds", "field"),
    [
        (None, "never"),
        (0.001, "1"),
        (1, "1"),
        (1.0001, "2"),
        (299.5, "300"),
        (10**12, "3153600000"),
        (math.inf, "3153600000"),
    ],
)
def test_ttl(seconds: float | None, field: str) -> None:
    assert wire.ttl_field(seconds) == field


# Replies -------------------------------------------------------------------------------------


def test_a_direct_get() -> None:
    message = wire.parse_direct(Reply(STORED, b"payload"))
    assert message is not None
    assert message.subject == b"$KV.b.=.1.k"
    assert message.sequence == 7
    assert message.payload == b"payload"
    assert message.stamp == b"2026-01-02T03:04:05.678901234Z"
    assert not message.deleted
    assert wire.format_field(message.header) == b"pickle;ms=300000"
    assert wire.field(message.header, "Nats-TTL") == "300"
    assert wire.format_field(STORED.replace(b"Django-Nats", b"Other")) == b""


@pytest.mark.parametrize(
    "line",
    [
        b"KV-Operation: PURGE",
        b"KV-Operation: DEL",
        b"Nats-Marker-Reason: MaxAge",
        b"Nats-Marker-Reason: Remove",
    ],
)
def test_tombstones_and_the_servers_markers_are_no_values(line: bytes) -> None:
    message = wire.parse_direct(Reply(STORED.replace(b"Nats-TTL: 300", line), b""))
    assert message is not None
    assert message.deleted
    assert not wire.is_tombstone(STORED)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b" 404 Message Not Found", 404),
        (b" 503", 503),
        (b" 204 EOB", 204),
        (b" 408 Request Timeout", 408),
        (b"", 0),
        (b" abc", 0),
        (b" ", 0),
    ],
)
def test_status(line: bytes, code: int) -> None:
    assert (
        wire.status(Reply(b"NATS/1.0" + line + b"\r\nNats-Last-Sequence: 4\r\n\r\n", b"")) == code
    )
    assert wire.status(Reply(b"", b"")) == 0


def test_statuses_become_answers_or_errors() -> None:
    assert wire.parse_direct(Reply(b"NATS/1.0 404 Message Not Found\r\n\r\n", b"")) is None
    with pytest.raises(NoLeader) as caught:
        wire.parse_direct(Reply(b"NATS/1.0 503\r\n\r\n", b""))
    assert caught.value.code == 503
    with pytest.raises(ServerError, match="408 Bad Request") as refused:
        wire.parse_direct(Reply(b"NATS/1.0 408 Bad Request\r\n\r\n", b""))
    assert refused.value.code == 408
    for parse in (wire.parse_ack, wire.parse_api, wire.parse_leader):
        with pytest.raises(NoLeader):
            parse(Reply(b"NATS/1.0 503\r\n\r\n", b""))


def test_the_rest_of_a_batch() -> None:
    assert wire.pending(b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 17\r\n\r\n") == 17
    assert wire.pending(b"NATS/1.0 204 EOB\r\n\r\n") == 0


FORGED = (
    b"NATS/1.0\r\nNats-Sequence: 999\r\nNats-Time-Stamp: 1999-01-01T00:00:00Z\r\n"
    b"Nats-Subject: $KV.b.other\r\nNats-Num-Pending: 5\r\n\r\n"
)


def test_a_writer_does_not_speak_for_the_server() -> None:
    server = STORED.partition(b"Nats-Stream")
    forged = FORGED[:-2] + server[1] + server[2]
    message = wire.parse_direct(Reply(forged, b""))
    assert message is not None
    assert (message.sequence, message.subject) == (7, b"$KV.b.=.1.k")
    assert message.stamp.startswith(b"2026")
    assert wire.field(forged, "Nats-Sequence") == "7"


@pytest.mark.parametrize("line", [b"NATS/1.0 503 No", b"NATS/1.0 404", b"NATS/1.0 204 EOB"])
def test_a_stored_message_is_no_status(line: bytes) -> None:
    forged = line + STORED.removeprefix(b"NATS/1.0")
    assert wire.status(Reply(forged, b"")) == 0
    assert wire.parse_direct(Reply(forged, b"")) is not None
    delivered = Reply(line + b"\r\n\r\n", b"", reply_to=b"$JS.ACK.KV_b.c.1.1.1.1.0")
    assert wire.status(delivered) == 0


@pytest.mark.parametrize(
    "header", [FORGED, b"NATS/1.0 404 x\r\n\r\n", b"NATS/1.0 204\r\n\r\n", b"XXXXXXXX 503 yy"]
)
def test_forged_headers_on_a_server(make_cache: MakeCache, header: bytes) -> None:
    cache = make_cache()
    bucket = cache._bucket
    cache.set_many({"before": 1, "forged": 2, "after": 3})

    def forge() -> Steps[Reply]:
        subject = f"$KV.{bucket.config.name}.=.1.forged"
        return (yield Request(bucket.writes, subject, b"value", header))

    revision = wire.parse_ack(bridge.run(cache.session, forge())).sequence
    assert cache.get_with_revision("forged") == (b"value", revision)
    assert cache.get_many(["before", "forged", "after"]) == {
        "before": 1,
        "forged": b"value",
        "after": 3,
    }
    assert sorted(cache.keys()) == ["after", "before", "forged"]


@pytest.mark.parametrize(
    ("payload", "ack"),
    [
        (b'{"stream":"KV_b","seq":12}', (12, False)),
        (b'{"stream":"KV_b", "seq":12}', (12, False)),
        (b'{"stream":"KV_b","domain":"hub","seq":12}', (12, False)),
        (b'{"stream":"KV_b","seq":12,"duplicate":true}', (12, True)),
        (b'{"seq":12,"stream":"KV_b","duplicate":true}', (12, True)),
        (b'{"stream":"KV_b","seq":12,"batch":"x","count":2}', (12, False)),
    ],
)
def test_acknowledgements(payload: bytes, ack: tuple[int, bool]) -> None:
    assert wire.parse_ack(Reply(b"", payload)) == ack


def error(err_code: int, code: int = 400) -> Reply:
    description = {"code": code, "err_code": err_code, "description": "because"}
    return api_reply({"error": description, "stream": "KV_b", "seq": 0})


@pytest.mark.parametrize(
    ("err_code", "kind"),
    [
        (10071, WrongRevision),
        (10164, WrongRevision),
        (10077, BucketFull),
        (10023, BucketFull),
        (10047, BucketFull),
        (10008, NoLeader),
        (10009, NoLeader),
        (10118, NoLeader),
        (10158, ServerError),
        (10059, ServerError),
        (99999, ServerError),
    ],
)
def test_errors(err_code: int, kind: type[ServerError]) -> None:
    for parse in (wire.parse_ack, wire.parse_api):
        with pytest.raises(ServerError, match=rf"because \({err_code}\)") as caught:
            parse(error(err_code))
        assert type(caught.value) is kind
        assert (caught.value.code, caught.value.err_code) == (400, err_code)


def test_an_error_in_an_acknowledgement_that_begins_like_a_good_one() -> None:
    payload = b'{"stream":"KV_b","seq":0,"error":{"code":400,"err_code":10071,"description":"x"}}'
    with pytest.raises(WrongRevision):
        wire.parse_ack(Reply(b"", payload))


def test_over_the_limit() -> None:
    with pytest.raises(ValueTooLarge, match="over the bucket's limit"):
        wire.parse_ack(error(10054))


def test_what_is_no_json() -> None:
    with pytest.raises(ServerError, match="not JSON"):
        wire.parse_api(Reply(b"", b"<html>"))


def test_a_message_from_the_leader() -> None:
    stored = {
        "subject": "$KV.b.k",
        "seq": 7,
        "hdrs": base64.b64encode(b"NATS/1.0\r\nNats-Msg-Id: x\r\n\r\n").decode(),
        "data": base64.b64encode(b"\0value").decode(),
        "time": "2026-01-02T03:04:05Z",
    }
    message = wire.parse_leader(api_reply({"type": "…", "message": stored}))
    assert message is not None
    assert message[:2] == (b"$KV.b.k", 7)
    assert (message.payload, message.stamp) == (b"\0value", b"2026-01-02T03:04:05Z")
    assert wire.field(message.header, "Nats-Msg-Id") == "x"
    bare = {key: stored[key] for key in ("subject", "seq", "time")}
    empty = wire.parse_leader(api_reply({"message": bare}))
    assert empty is not None
    assert (empty.header, empty.payload) == (b"", b"")
    assert wire.parse_leader(error(10037, 404)) is None
    with pytest.raises(NoLeader):
        wire.parse_leader(error(10009))


@pytest.mark.parametrize(
    ("reply", "without", "answers"),
    [
        (Reply(b"NATS/1.0 503\r\n\r\n", b""), True, False),
        (error(10059, 404), True, True),
        (Reply(b"NATS/1.0 404 Not Found\r\n\r\n", b""), False, True),
        (error(10009), False, False),
        (error(10077), False, True),
        (Reply(b"", b'{"stream":"KV_b","seq":12}'), False, True),
        # A value says nothing, whatever it says.
        (Reply(STORED, b'{"error":{"err_code":10059}}'), False, True),
    ],
)
def test_who_answers(reply: Reply, without: bool, answers: bool) -> None:
    assert wire.is_without_stream(reply) is without
    assert wire.answers_for_stream(reply) is answers


# Time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        (b"1970-01-01T00:00:00Z", 0),
        (b"1970-01-01T00:01:00.5Z", 60.5),
        (b"1970-01-01T00:00:01.000001Z", 1.000001),
        (b"1970-01-01T00:00:01.123456789Z", 1.123456789),
        (b"2026-01-02T03:04:05Z", 1767323045),
    ],
)
def test_epoch(stamp: bytes, seconds: float) -> None:
    assert wire.epoch(stamp) == pytest.approx(seconds, abs=1e-6)


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(timezone.utc)),
    st.integers(0, 10**9 - 1),
)
def test_epoch_is_exact_to_the_microsecond(moment: datetime, nanoseconds: int) -> None:
    moment = moment.replace(microsecond=0)
    fraction = f".{nanoseconds:09}".rstrip("0").rstrip(".")
    stamp = f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z".encode()
    expected = moment + timedelta(microseconds=nanoseconds / 1000)
    assert abs(wire.epoch(stamp) - expected.timestamp()) < 2e-6


@pytest.mark.parametrize(
    "stamp", [b"", b"yesterday", b"2026-01-02T03:04:05+01:00", b"2026-13-02T03:04:05Z"]
)
def test_what_is_no_time(stamp: bytes) -> None:
    with pytest.raises(Unreadable, match="Not a time"):
        wire.epoch(stamp)
