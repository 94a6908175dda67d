"""Whatever the server answers is either parsed or raises a NatsError."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from django_nats.client.counters.config import CounterConfig, SourceConfig
from django_nats.client.counters.sources import lags_of
from django_nats.client.counters.stream import CounterStream
from django_nats.client.feed.mailbox import Mailbox
from django_nats.client.kv import copies
from django_nats.client.kv.bucket import Bucket
from django_nats.client.kv.config import BucketConfig
from django_nats.client.kv.entry import EVERYTHING
from django_nats.client.protocol import documents, wire
from django_nats.client.protocol.wire import Reply
from django_nats.client.streams import scan
from django_nats.client.streams.differences import differences
from django_nats.exceptions import NatsError
from tests.support import answers, counting
from tests.support.answers import Session, stream_document

WITHOUT = Reply(b"NATS/1.0 503\r\n\r\n", b"")
DELIVERED = Reply(b"", b"", b"$JS.ACK.KV_b.c.1.7.1.1700000000000000000.3", b"$KV.b.=.1.k")
REPLIES = [
    answers.stored(7),
    answers.stored(7, header="Nats-Msg-Id: x\r\n"),
    answers.ack(7),
    Reply(b"", b'{"stream":"C","seq":7,"val":"5","duplicate":true}'),
    answers.refusal(10071),
    answers.from_leader(7),
    answers.MISSING,
    answers.batch(pending=3)[-1],
    counting.stored(7, 5),
    DELIVERED,
    WITHOUT,
]

junk = st.binary(max_size=12) | st.sampled_from(
    [b"9" * 5000, b"-1", b"1e400", b"\xff", b"\r\n", b" ", b"[]", b"null", b'"', b"\\ud800", b"{"]
)


@st.composite
def mutated(draw: st.DrawFn) -> Reply:
    """Return a reply with some bytes changed."""
    reply = list(draw(st.sampled_from(REPLIES)))
    for _ in range(draw(st.integers(1, 3))):
        part = draw(st.integers(0, 3))
        data = reply[part]
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 12)))
        reply[part] = data[:start] + draw(junk) + data[end:]
    return Reply(*reply)


def understood(parse: Callable[[], Any]) -> Any:
    with suppress(NatsError):
        return parse()
    return None


@settings(max_examples=300, deadline=None)
@given(mutated())
def test_a_mutated_reply_is_parsed_or_raises_a_nats_error(reply: Reply) -> None:
    assert wire.status(reply) in range(-1, 1000)
    wire.is_without_stream(reply)
    wire.answers_for_stream(reply)
    understood(lambda: wire.pending(reply.header))
    understood(lambda: wire.parse_api(reply))
    understood(lambda: scan.delivery_of(reply, b"KV_b.c."))
    ack = understood(lambda: wire.parse_ack(reply, b"KV_b"))
    assert ack is None or 0 < ack.sequence < 2**64
    for parse in (wire.parse_direct, wire.parse_leader):
        message = understood(lambda parse=parse: parse(reply))
        if message is not None:
            assert 0 < message.sequence < 2**64


def of_bucket(operation: Callable[[Bucket], Any]) -> Callable[[], Any]:
    bucket = answers.opened(request_timeout=0.0)
    return lambda: operation(bucket)


OPERATIONS = [
    of_bucket(lambda bucket: bucket.get(":1:k")),
    of_bucket(lambda bucket: bucket.get_many([":1:k", ":1:j"])),
    of_bucket(lambda bucket: bucket.put(":1:k", answers.WRITE)),
    of_bucket(lambda bucket: bucket.put_many({":1:k": answers.WRITE})),
    of_bucket(lambda bucket: bucket.add(":1:k", answers.WRITE)),
    of_bucket(lambda bucket: bucket.delete(":1:k")),
    of_bucket(lambda bucket: bucket.clear()),
    lambda: counting.opened(deadline=0.0).value("k"),
    lambda: counting.opened(deadline=0.0).incr("k", 1),
    lambda: counting.opened(deadline=0.0).get_many(["k", "j"]),
    lambda: counting.opened(deadline=0.0).matching(">"),
    lambda: counting.opened(deadline=0.0).sources("k"),
    lambda: counting.opened(deadline=0.0).reset("k"),
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(OPERATIONS), st.lists(mutated(), min_size=1, max_size=4))
def test_an_operation_ends_or_raises_a_nats_error(
    operation: Callable[[], Any], replies: list[Reply]
) -> None:
    """Any replies are given, in any order. The last one is repeated."""
    left = list(replies)

    def next_reply(request: Any) -> Any:
        reply = left.pop(0) if len(left) > 1 else left[0]
        return [reply] if request.gather else reply

    with suppress(NatsError, StopIteration):
        steps = operation()
        effect = next(steps)
        for _ in range(60):
            if isinstance(effect, answers.Pause):
                effect = steps.send(None)
            elif isinstance(effect, Sequence):
                effect = steps.send([next_reply(each) for each in effect])
            else:
                effect = steps.send(next_reply(effect))


# Documents -----------------------------------------------------------------------------------

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 2**63, 2**64, 10**30])
    | st.floats()
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)
SUM = CounterConfig("C", "c", sources=(SourceConfig("S", "s"),))
STREAMS = [
    stream_document(BucketConfig("b"), num_subjects=1),
    stream_document(CounterConfig("C", "c")),
    stream_document(SUM) | {"sources": [{"name": "S", "active": 5, "lag": 1, "error": {}}]},
]


@st.composite
def altered(draw: st.DrawFn) -> dict[str, Any]:
    """Return a document with some fields changed or removed."""
    document = json.loads(json.dumps(draw(st.sampled_from(STREAMS))))
    for _ in range(draw(st.integers(1, 3))):
        at: Any = document
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(at[key], (dict, list)) and draw(st.booleans()):
                at = at[key]
                continue
            if isinstance(at, dict) and draw(st.booleans()):
                del at[key]
            else:
                at[key] = draw(json_values)
            break
    return dict(document)


@settings(max_examples=300, deadline=None)
@given(altered())
def test_a_mutated_stream_document_is_used_or_raises_a_nats_error(document: dict[str, Any]) -> None:
    reply = Reply(b"", json.dumps(document).encode())
    level = Reply(b"", b'{"api":{"level":2}}')
    streams = (
        Bucket(BucketConfig("b"), Session()),
        CounterStream(CounterConfig("C", "c"), Session()),
        CounterStream(SUM, Session()),
    )
    for stream in streams:
        with suppress(NatsError):
            info, _ = _finish(stream.stream.opening.open(), reply, level)
            lags_of(info, SUM.sources)
            Mailbox().position(info)
            for each in differences(stream.config, info["config"], info["state"]):
                str(each)


def _finish(steps: Any, *replies: Reply) -> Any:
    """Give an operation the second reply when it asks for the account, and otherwise the first."""
    info, level = replies
    effect = next(steps)
    for _ in range(10):
        is_account = effect.subject == b"$JS.API.INFO"
        try:
            effect = steps.send(level if is_account else info)
        except StopIteration as end:
            return end.value, None
    raise AssertionError("it does not end")


@settings(max_examples=200, deadline=None)
@given(json_values, st.sampled_from([documents.ACCOUNT, documents.CONSUMER, documents.PURGED]))
def test_any_json_has_the_shape_or_raises_a_nats_error(value: Any, shape: documents.Shape) -> None:
    understood(lambda: documents.read(json.dumps(value).encode(), "the answer", shape))


def test_no_copy_is_made_of_an_invalid_reply() -> None:
    kept = copies.Copies(copies.Bounds(), lambda key: True)
    kept.opened(0)
    kept.proven(copies.monotonic() + 100, EVERYTHING)
    bucket = answers.opened()
    bucket._near_caches.copies = [kept]
    for odd in (answers.stored(7, key="=.1.other"), answers.from_leader(7), Reply(b"", b"[]")):
        for operation in (bucket.get(":1:k"), bucket.put(":1:k", answers.WRITE)):
            with suppress(NatsError):
                answers.finish(operation, odd)
        assert (len(kept), kept._attempts) == (0, {})
