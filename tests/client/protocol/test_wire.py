from __future__ import annotations

import base64
import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_nats.client import drivers
from django_nats.client.protocol import wire
from django_nats.client.protocol.steps import Request, Steps
from django_nats.client.protocol.wire import Reply
from django_nats.exceptions import (
    NoLeader,
    NotServed,
    ServerError,
    UnexpectedReply,
    ValueTooLarge,
    WrongRevision,
)
from tests.conftest import MakeCache
from tests.support.answers import too_many_requests

STORED = (
    b"NATS/1.0\r\nDjango-Nats: pickle;ms=300000\r\nNats-TTL: 300\r\nNats-Stream: KV_b\r\n"
    b"Nats-Subject: $KV.b.=.1.k\r\nNats-Sequence: 7\r\n"
    b"Nats-Time-Stamp: 2026-01-02T03:04:05.678901234Z\r\n\r\n"
)
names = st.text("abcdefghijklmnopqrstuvwxyzABC-", min_size=1)
values = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"))


def ack_of(reply: Reply) -> wire.Ack:
    return wire.parse_ack(reply, b"KV_b")


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


def test_a_block_is_extended_by_lines() -> None:
    header = wire.extended(wire.header_block({"Nats-TTL": "5"}), "Nats-Msg-Id: a\r\n")
    assert header == wire.header_block({"Nats-TTL": "5", "Nats-Msg-Id": "a"})


@given(st.dictionaries(names, values, min_size=1), st.data())
def test_a_field_of_a_header_block_is_read_back(
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
        return  # a lone surrogate, which keys.py refuses earlier
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
def test_ttl_is_in_whole_seconds(seconds: float | None, field: str) -> None:
    assert wire.ttl_field(seconds) == field


# Replies -------------------------------------------------------------------------------------


def test_a_direct_get_is_parsed() -> None:
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
        b"KV-Operation:DEL",
        b"Nats-Marker-Reason: MaxAge",
        b"Nats-Marker-Reason: Remove",
    ],
)
def test_tombstones_and_the_servers_markers_are_deleted(line: bytes) -> None:
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
        (b" abc", wire.ODD_STATUS),
        (b" ", wire.ODD_STATUS),
        (b" 40", wire.ODD_STATUS),
        (b" 4040", wire.ODD_STATUS),
        (b" -40 x", wire.ODD_STATUS),
        (b" 4_0 x", wire.ODD_STATUS),
        (b" \xd9\xa4\xd9\xa0\xd9\xa4", wire.ODD_STATUS),
    ],
)
def test_status_is_read_from_the_header(line: bytes, code: int) -> None:
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
    for parse in (ack_of, wire.parse_api, wire.parse_leader):
        with pytest.raises(NoLeader):
            parse(Reply(b"NATS/1.0 503\r\n\r\n", b""))


def test_pending_messages_of_a_batch_are_counted() -> None:
    assert wire.pending(b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 17\r\n\r\n") == 17
    assert wire.pending(b"NATS/1.0 204 EOB\r\n\r\n") == 0


FORGED = (
    b"NATS/1.0\r\nNats-Sequence: 999\r\nNats-Time-Stamp: 1999-01-01T00:00:00Z\r\n"
    b"Nats-Subject: $KV.b.other\r\nNats-Num-Pending: 5\r\n\r\n"
)


def test_a_writer_cannot_forge_the_servers_fields() -> None:
    server = STORED.partition(b"Nats-Stream")
    forged = FORGED[:-2] + server[1] + server[2]
    message = wire.parse_direct(Reply(forged, b""))
    assert message is not None
    assert (message.sequence, message.subject) == (7, b"$KV.b.=.1.k")
    assert message.stamp.startswith(b"2026")
    assert wire.field(forged, "Nats-Sequence") == "7"


@pytest.mark.parametrize("line", [b"NATS/1.0 503 No", b"NATS/1.0 404", b"NATS/1.0 204 EOB"])
def test_a_stored_message_is_not_taken_for_a_status(line: bytes) -> None:
    forged = line + STORED.removeprefix(b"NATS/1.0")
    assert wire.status(Reply(forged, b"")) == 0
    assert wire.parse_direct(Reply(forged, b"")) is not None
    delivered = Reply(line + b"\r\n\r\n", b"", reply_to=b"$JS.ACK.KV_b.c.1.1.1.1.0")
    assert wire.status(delivered) == 0


@pytest.mark.parametrize(
    "header", [FORGED, b"NATS/1.0 404 x\r\n\r\n", b"NATS/1.0 204\r\n\r\n", b"XXXXXXXX 503 yy"]
)
def test_forged_headers_are_ignored_on_a_server(make_cache: MakeCache, header: bytes) -> None:
    cache = make_cache()
    bucket = cache.bucket
    cache.set_many({"before": 1, "forged": 2, "after": 3})

    def forge() -> Steps[Reply]:
        subject = f"$KV.{bucket.config.name}.=.1.forged"
        return (yield Request(bucket.stream.lanes.writes, subject, b"value", header))

    revision = bucket._messages.acknowledged(drivers.run(cache.session, forge())).sequence
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
        (b'{"stream":"KV_b","seq":12,"duplicate":true}', (12, True)),
        (b'{"seq":12,"stream":"KV_b","duplicate":true}', (12, True)),
        (b'{"stream":"KV_b","seq":12,"batch":"x","count":2}', (12, False)),
    ],
)
def test_acknowledgements_are_parsed(payload: bytes, ack: tuple[int, bool]) -> None:
    assert ack_of(Reply(b"", payload)) == ack


@pytest.mark.parametrize("rest", [b"", b', "duplicate": true'])
@pytest.mark.parametrize("domain", [b"hub", None])
def test_an_acknowledgement_names_the_domain(domain: bytes | None, rest: bytes) -> None:
    named = b"" if domain is None else b'"domain":"%b", ' % domain
    reply = Reply(b"", b'{"stream":"KV_b", %b"seq": 12%b}' % (named, rest))
    assert wire.parse_ack(reply, b"KV_b") == (12, bool(rest))
    assert wire.domain_of(reply) == domain


LONG = b"9" * 5000


@pytest.mark.parametrize(
    "payload",
    [
        b'{"stream":"KV_b"}',
        b'{"stream":"KV_b","seq":"12"}',
        b'{"stream":"KV_b","seq":true}',
        b'{"stream":"KV_b","seq":-12}',
        b'{"stream":"KV_b","seq":0}',
        b'{"stream":"KV_b","seq":1.5}',
        b'{"stream":"KV_b","seq":18446744073709551616}',
        b'{"stream":"KV_b","seq":99999999999999999999}',
        b'{"stream":"KV_b","seq":%b}' % LONG,
        b'{"stream":"KV_b","seq":null}',
        b'{"stream":7,"seq":12}',
        b'{"stream":"KV_other","seq":12}',
        b'{"seq":12,"stream":"KV_other"}',
        b'{"seq":12}',
        b'{"stream":"KV_b","seq":12,"duplicate":"yes"}',
        b'{"error":null,"stream":"KV_b","seq":12}',
        b'{"error":"no"}',
        b'{"error":{"code":"4","err_code":10071}}',
        b'{"error":{"code":400,"err_code":[]}}',
        b"[12]",
        b"12",
        b"+OK",
        b"",
        b"\xff",
    ],
)
def test_an_acknowledgement_of_another_stream_is_refused(payload: bytes) -> None:
    with pytest.raises(UnexpectedReply):
        ack_of(Reply(b"", payload))


def test_the_largest_sequence_is_parsed() -> None:
    largest = 2**64 - 1
    assert ack_of(Reply(b"", b'{"stream":"KV_b","seq":%d}' % largest)).sequence == largest
    message = wire.parse_direct(Reply(STORED.replace(b": 7\r", b": %d\r" % largest), b""))
    assert message is not None
    assert message.sequence == largest


@pytest.mark.parametrize(
    "header",
    [
        STORED.replace(b": 7\r", b": %b\r" % LONG),
        STORED.replace(b": 7\r", b": 18446744073709551616\r"),
        STORED.replace(b": 7\r", b": 0\r"),
        STORED.replace(b": 7\r", b": -7\r"),
        STORED.replace(b": 7\r", b": \r"),
        STORED.replace(b"Nats-Sequence", b"Sequence"),
        b"",
        b"NATS/1.0\r\n\r\n",
        b"NATS/1.0 abc\r\n\r\n",
        b"NATS/1.0 200 OK\r\n\r\n",
        b"NATS/1.0 999 x\r\n\r\n",
        b"NATS/1.0 %b\r\n\r\n" % LONG,
    ],
)
def test_an_invalid_direct_get_is_refused(header: bytes) -> None:
    with pytest.raises(UnexpectedReply) as raised:
        wire.parse_direct(Reply(header, b"payload"))
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("digits", [b"x", b"-1", b"1_0", b"18446744073709551616", LONG])
def test_an_invalid_pending_count_is_refused(digits: bytes) -> None:
    with pytest.raises(UnexpectedReply, match="Nats-Num-Pending is not a number"):
        wire.pending(b"NATS/1.0 204 EOB\r\nNats-Num-Pending: %b\r\n\r\n" % digits)


def test_a_subject_in_a_header_must_be_one_word() -> None:
    header = b"NATS/1.0\r\nA: $JS.FC.x\r\nB: x 0\r\nC: \xff\r\nD: %b\r\n\r\n" % LONG
    assert wire.subject_field(header, "A") == b"$JS.FC.x"
    assert wire.subject_field(header, "E") is None
    for odd in "BCD":
        with pytest.raises(UnexpectedReply, match=f"{odd} is not a subject"):
            wire.subject_field(header, odd)


def test_a_field_that_is_not_base64_is_refused() -> None:
    stored = {"subject": "s", "seq": 7, "data": "€", "time": "2026-01-02T03:04:05Z"}
    for odd in ("€", "a", "YQ=", "Y!Q="):
        with pytest.raises(UnexpectedReply, match="data of a stored message is not base64"):
            wire.parse_leader(api_reply({"message": {**stored, "data": odd}}))


def error(err_code: int, code: int = 400) -> Reply:
    description = {"code": code, "err_code": err_code, "description": "because"}
    return api_reply({"error": description, "stream": "KV_b", "seq": 0})


def test_an_error_is_found_in_an_answer_that_begins_like_an_acknowledgement() -> None:
    payload = b'{"stream":"KV_b","seq":0,"error":{"code":400,"err_code":10071,"description":"x"}}'
    with pytest.raises(WrongRevision):
        ack_of(Reply(b"", payload))


def test_a_value_over_the_limit_is_too_large() -> None:
    with pytest.raises(ValueTooLarge, match="over the bucket's limit"):
        ack_of(error(10054))


def test_an_answer_that_is_not_json_is_refused() -> None:
    with pytest.raises(UnexpectedReply, match="not valid JSON"):
        wire.parse_api(Reply(b"", b"<html>"))


def test_a_message_from_the_leader_is_parsed() -> None:
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
        (Reply(b"NATS/1.0 429 Too Many Requests\r\n\r\n", b"{}"), False, True),
        (error(10008, 503), True, False),
        (error(10009), True, False),
        (error(10071), False, True),
        (error(10077), False, True),
        (error(10054), False, True),
        (Reply(b"", b"<html>"), False, False),
        (Reply(b"NATS/1.0 abc\r\n\r\n", b""), False, False),
        (Reply(b"", b'{"stream":"KV_b","seq":12}'), False, True),
        # The payload of a value is not searched for errors.
        (Reply(STORED, b'{"error":{"err_code":10059}}'), False, True),
    ],
)
def test_answers_for_the_stream_are_recognised(reply: Reply, without: bool, answers: bool) -> None:
    assert wire.is_without_stream(reply) is without
    assert wire.answers_for_stream(reply) is answers


def test_a_status_of_a_busy_stream_is_explained_by_its_payload() -> None:
    with pytest.raises(NotServed) as caught:
        wire.parse_api(too_many_requests("KV_b"))
    assert (caught.value.code, caught.value.err_code) == (429, 10167)


@pytest.mark.parametrize("payload", [b"", b"{}"])
def test_a_status_is_an_error_whatever_the_payload_says(payload: bytes) -> None:
    for status in (b"429 Too Many Requests", b"409 Consumer Deleted"):
        with pytest.raises(ServerError, match=status.decode()):
            wire.parse_api(Reply(b"NATS/1.0 %b\r\n\r\n" % status, payload))
