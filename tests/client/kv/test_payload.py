"""The value of one key, read in the short way, is what ``get`` returns, whatever the reply is."""

from __future__ import annotations

from time import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_nats.client.kv import lifetimes, reading
from django_nats.client.kv.bucket import Bucket
from django_nats.client.kv.lifetimes import Lifetimes, life_key
from django_nats.client.protocol.steps import Request, Steps
from django_nats.client.protocol.wire import Reply
from django_nats.exceptions import NatsError
from tests.support.answers import document, finish, opened, stored

KEY = ":1:a"
WRITER = "Django-Nats: json;ms=86400000\r\nNats-TTL: 86400\r\n"
CONDITIONS = "Nats-Expected-Last-Subject-Sequence: 3\r\nNats-Msg-Id: 0123456789abcdef\r\n"
NOW = time()
HEADERS = [
    WRITER,
    "Django-Nats: pickle\r\nNats-TTL: never\r\n",
    "Django-Nats: json;ms=400\r\nNats-TTL: 1\r\n",
    f"Django-Nats: json;at={round(NOW + 86400) * 1000}\r\nNats-TTL: 86400\r\n",
    f"Django-Nats: json;at={round(NOW - 86400) * 1000}\r\nNats-TTL: 86400\r\n",
    "Django-Nats: json;xx=1\r\nNats-TTL: 9\r\n",
    "Django-Nats: ;ms=86400000\r\nNats-TTL: 9\r\n",
    f"Django-Nats: {'x' * 80}\r\nNats-TTL: 9\r\n",
    "KV-Operation: DEL\r\n",
    "KV-Operation:DEL\r\n",
    "",
    "Nats-TTL: 86400\r\n",
    f"{WRITER}Nats-Msg-Id: x\r\n",
    f"{WRITER}{CONDITIONS}",
    f"{CONDITIONS}{WRITER}",
    f"{WRITER}{CONDITIONS}KV-Operation: DEL\r\n",
]
replies = st.builds(
    stored,
    st.integers(0, 20),
    st.sampled_from(["=.1.a"] * 5 + ["=.1.b"]),
    st.binary(max_size=9),
    st.sampled_from(HEADERS),
    st.floats(NOW - 1000, NOW - 100) | st.floats(NOW - 1000, NOW + 10**6),
)
junk = st.binary(max_size=4) | st.sampled_from([b"\r\n", b"9" * 30, b"-1", b" 404", b" 503"])


def settled(**options: Any) -> Bucket:
    bucket = opened(**options)
    bucket.clock.due = float("inf")
    return bucket


def outcome(steps: Steps[Any], reply: Reply) -> object:
    """Return payload, format and revision that an operation returns, or the name of its error."""
    try:
        next(steps)
        effect = steps.send(reply)
    except StopIteration as end:
        return end.value and end.value[:3]
    except NatsError as error:
        return type(error).__name__
    assert isinstance(effect, Request)
    return effect.subject


@pytest.mark.once
@settings(max_examples=1000, deadline=None)
@given(replies, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 8), junk), max_size=2))
def test_any_reply_is_read_alike(reply: Reply, changes: list[tuple[int, int, bytes]]) -> None:
    header = reply.header
    for where, length, what in changes:
        start = where % (len(header) + 1)
        header = header[:start] + what + header[start + length :]
    reply = reply._replace(header=header)
    buckets = settled(replicas=3), settled(replicas=3)
    for each in buckets:
        each.clock.offset = buckets[0].clock.offset
        each.stream.opening.replicated = True
        each.stream.recent.note(b"$KV.b.=.1.a", 10)  # replies with lower sequences are stale
    short = outcome(buckets[0].get_payload(KEY), reply)
    assert short == outcome(buckets[1].get(KEY), reply)


def test_a_stale_value_is_asked_of_the_leader() -> None:
    bucket = settled(replicas=3)
    bucket.stream.recent.note(b"$KV.b.=.1.a", 10)
    for sequence, asks_again in ((9, True), (10, False)):
        reply = stored(sequence, "=.1.a", header=WRITER, at=NOW - 10)
        again = outcome(bucket.get_payload(KEY), reply)
        assert (again == b"$JS.API.STREAM.MSG.GET.KV_b") == asks_again


def test_a_value_of_the_future_corrects_the_clock() -> None:
    bucket = settled()
    offset = bucket.clock.offset
    reply = stored(7, "=.1.a", b"x", WRITER, bucket.clock.now() + 60)
    assert outcome(bucket.get_payload(KEY), reply) == (b"x", "json", 7)
    assert bucket.clock.offset > offset + 50


def test_a_value_expires_by_the_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = settled()
    reply = stored(7, "=.1.a", b"x", "Django-Nats: json;ms=1500\r\nNats-TTL: 2\r\n", 1_000_000.25)
    for now, found in ((1_000_001.4, True), (1_000_001.74, True), (1_000_001.76, False)):
        monkeypatch.setattr(bucket.clock, "now", lambda now=now: now)
        monkeypatch.setattr(bucket.clock, "now_at_least", lambda stored, now=now: now)
        assert bool(outcome(bucket.get_payload(KEY), reply)) == found


def test_a_value_of_a_deleted_stream_is_asked_for_again() -> None:
    """No server answers for the stream: it is looked for, and the request repeated."""
    bucket = settled()
    steps = bucket.get_payload(KEY)
    first = next(steps)
    missing = document({"error": {"code": 404, "err_code": 10059, "description": "no stream"}})
    looked_for = steps.send(missing)
    assert (first.subject, looked_for.subject) == (
        b"$JS.API.DIRECT.GET.KV_b.$KV.b.=.1.a",
        b"$JS.API.STREAM.INFO.KV_b",
    )


def test_readers_of_the_leader_ask_the_leader() -> None:
    request = next(settled(reads="leader").get_payload(KEY))
    assert request.subject == b"$JS.API.STREAM.MSG.GET.KV_b"


def test_the_request_for_a_short_key_is_kept() -> None:
    bucket = settled()
    requests = [next(bucket.get_payload(key)) for key in (KEY, KEY, ":1:b")]
    assert requests[0] is requests[1]
    assert requests[2].subject.endswith(b".b")


def test_the_request_for_a_long_key_is_not_kept() -> None:
    bucket = settled()
    key = "k" * (reading._LONGEST_KEPT + 1)
    assert next(bucket.get_payload(key)) is not next(bucket.get_payload(key))


def test_lifetimes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifetimes, "MAX_KEPT", 3)
    lives = Lifetimes()
    for second in range(10):
        life = lives[life_key(b"json;ms=1000", b"2030-01-01T00:00:0%d.5Z" % second)]
        assert life.expires == life.end_of_second
        assert len(lives) <= 3


def test_the_life_of_a_long_field_is_not_kept() -> None:
    lives = Lifetimes()
    assert lives[life_key(b"x" * 65, b"2030-01-01T00:00:00Z")].format == "x" * 65
    assert not lives


def test_a_missing_value_is_none() -> None:
    entry, requests = finish(
        settled().get_payload(KEY), Reply(b"NATS/1.0 404 Message Not Found\r\n\r\n", b"")
    )
    assert (entry, len(requests)) == (None, 1)
