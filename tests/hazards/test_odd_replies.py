"""A server whose replies are malformed or belong to other requests, by a bug or on purpose."""

from __future__ import annotations

import asyncio
import base64
import logging
import threading
import time
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest
from django.test import override_settings

from django_nats.cache import NatsCache
from django_nats.client import operations, process
from django_nats.client.counters import failures, increments
from django_nats.client.counters.config import CounterConfig
from django_nats.client.kv import bucket, writing
from django_nats.client.kv.config import BucketConfig
from django_nats.client.kv.entry import EVERYTHING
from django_nats.client.protocol import wire
from django_nats.client.protocol.wire import Reply, compact_json
from django_nats.client.streams import clock, opening, stream
from django_nats.counters import Counter, Counters
from django_nats.exceptions import CounterUnavailable, NotSent, Unavailable, UnexpectedReply
from tests.conftest import PATIENT
from tests.servers import eventually
from tests.support.answers import document, stamp, stream_document
from tests.support.fake_server import GREETING, Answer, FakeServer, Published
from tests.support.operations import CACHE, COUNTER, Call
from tests.support.operations import COUNTERS as OF_COUNTERS

pytestmark = pytest.mark.once

BUCKET = BucketConfig("b")
COUNTERS = CounterConfig("C", "c")
LONG = b"9" * 5000


def stream_info(published: Published) -> list[Reply] | None:
    """Return an honest answer to STREAM.INFO; None for every other request."""
    for config in (BUCKET, COUNTERS):
        if published.subject == f"$JS.API.STREAM.INFO.{config.stream}":
            return [document(stream_document(config, ts=stamp(time.time())))]
    return None


def stored(subject: str, sequence: bytes = b"7", payload: bytes = b"1") -> Reply:
    header = (
        b"NATS/1.0\r\nDjango-Nats: \r\nNats-Stream: KV_b\r\nNats-Subject: %b\r\n"
        b"Nats-Sequence: %b\r\nNats-Time-Stamp: 2026-01-02T03:04:05Z\r\n\r\n"
    )
    return Reply(header % (subject.encode(), sequence), payload)


END = Reply(b"NATS/1.0 204 EOB\r\n\r\n", b"")
NO_MORE = Reply(b"NATS/1.0 404 No Messages\r\n\r\n", b"")


# Odd answers to every request except STREAM.INFO ----------------------------------------------


def no_json(published: Published) -> list[Reply]:
    return [Reply(b"", b"<html>")]


def no_object(published: Published) -> list[Reply]:
    return [Reply(b"", b'["stream", "seq"]')]


def odd_status(published: Published) -> list[Reply]:
    return [Reply(b"NATS/1.0 4O4 Message Not Found\r\n\r\n", b"")]


def long_numbers(published: Published) -> list[Reply]:
    """Return replies with sequences of more digits than Python parses."""
    if published.subject.startswith("$JS.API.DIRECT.GET"):
        return [stored(f"$KV.b.{published.subject.partition('.$KV.b.')[2]}", LONG), END]
    if published.subject.startswith("$JS.API.STREAM.MSG.GET"):
        return [Reply(b"", b'{"message":{"subject":"c.k","time":"","seq":%b}}' % LONG)]
    return [Reply(b"", b'{"stream":"KV_b","purged":%b,"seq":%b}' % (LONG, LONG))]


def of_another(published: Published) -> list[Reply]:
    """Return well-formed replies of another subject, stream or consumer."""
    if published.subject.startswith("$JS.API.DIRECT.GET"):
        return [stored("$KV.b.=.1.another"), END]
    if published.subject.startswith("$JS.API.STREAM.MSG.GET"):
        data = base64.b64encode(b'{"val":"5"}').decode()
        message = {"subject": "c.another", "seq": 7, "data": data, "time": "2026-01-02T03:04:05Z"}
        return [document({"message": message})]
    if published.subject.startswith("$JS.API.STREAM.PURGE"):
        return [document({"stream": "another", "seq": 7})]
    if published.subject.startswith("$JS.API.CONSUMER.CREATE"):
        return [document({"num_pending": 2})]
    if published.subject.startswith("$JS.API.CONSUMER.MSG.NEXT"):
        consumer = published.subject.rpartition(".")[2]
        reply_to = f"$JS.ACK.KV_b.{consumer}.1.1.1.1700000000000000000.0".encode()
        return [Reply(b"", b"", reply_to, b"$KV.another.key"), NO_MORE]
    return [Reply(b"", b'{"stream":"another","seq":7,"val":"5"}')]


ODD = [no_json, no_object, odd_status, long_numbers, of_another]


@pytest.fixture
def serve() -> Iterator[Callable[..., FakeServer]]:
    """Return a function that starts a server with honest STREAM.INFO replies."""
    running: list[FakeServer] = []

    def start(answer: Answer, **options: bytes) -> FakeServer:
        server = FakeServer(lambda each: stream_info(each) or answer(each), **options)
        running.append(server.__enter__())
        return server

    yield start
    process.close()
    for each in running:
        each.__exit__()


Serve = Callable[..., FakeServer]


def cache_on(server: FakeServer, **options: Any) -> NatsCache:
    return NatsCache(server.url, {"OPTIONS": {"BUCKET": "b", **PATIENT, **options}})


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the retry loops' clock 100 times faster, so that they give up after a few pauses.

    Timeouts of requests are not changed."""
    began = monotonic()
    for module in (bucket, clock, failures, increments, opening, stream, writing):
        monkeypatch.setattr(module, "monotonic", lambda: began + 100 * (monotonic() - began))


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    monkeypatch.setattr(operations, "_last_warning", -1e9)
    monkeypatch.setattr(operations, "_QUIET_S", 1e6)  # seconds: longer than a test takes
    with caplog.at_level(logging.WARNING, "django_nats"):
        yield lambda: [each for each in caplog.messages if "Unexpected reply" in each]


# Every public method -------------------------------------------------------------------------


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("make", [Call.sync, Call.in_a_loop], ids=["sync", "async"])
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.__name__)
def test_fail_open_covers_every_method_of_the_cache(
    serve: Serve, odd: Answer, make: Callable[..., Any], warnings: Any
) -> None:
    cache = cache_on(serve(odd), FAIL_OPEN=True)
    for row, call in CACHE.items():
        if call.method != "stats":  # it also tells what is known of the connection
            assert call.away == make(call.at(7), cache), row
    assert len(warnings()) == 1


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.__name__)
@pytest.mark.parametrize("row", ["get", "keys", "set", "touch", "incr", "delete"])
def test_without_fail_open_every_method_raises_unexpected_reply(
    serve: Serve, odd: Answer, row: str
) -> None:
    cache = cache_on(serve(odd))
    for make in (Call.sync, Call.in_a_loop):
        with pytest.raises(UnexpectedReply):
            make(CACHE[row], cache)


@pytest.fixture
def counters_on() -> Iterator[Callable[..., Counters]]:
    overrides: list[Any] = []

    def configure(server: FakeServer, **options: Any) -> Counters:
        # Not longer than the duplicate window in stream_info() allows.
        patience = {"CONNECT_TIMEOUT": 10.0, "REQUEST_TIMEOUT": 10.0, "DEADLINE": 10.0}
        entry = {"LOCATION": server.url, "STREAM": "C", "PREFIX": "c", **patience, **options}
        overrides.append(override_settings(NATS_COUNTERS={"default": entry}))
        overrides[-1].enable()
        return Counters()

    yield configure
    for each in reversed(overrides):
        each.disable()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.__name__)
async def test_fail_open_covers_every_method_of_counters(
    serve: Serve, counters_on: Callable[..., Counters], odd: Answer, warnings: Any
) -> None:
    counters = counters_on(serve(odd), FAIL_OPEN=True)
    for host, rows in ((Counter("k"), COUNTER), (counters, OF_COUNTERS)):
        for row, call in rows.items():
            if call.twin:
                assert await call.awaited(host) == call.away, row
            if call.asks:
                assert await asyncio.to_thread(call.sync, host) == call.away, row
    assert len(warnings()) == 1


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.__name__)
def test_without_fail_open_counters_raise_counter_unavailable(
    serve: Serve, counters_on: Callable[..., Counters], odd: Answer
) -> None:
    counters_on(serve(odd))
    for operation in ("value", "incr", "reset"):
        with pytest.raises(CounterUnavailable) as raised:
            getattr(Counter("k"), operation)()
        assert raised.value.may_have_happened is (operation != "value")


@pytest.mark.parametrize("info", [[], {}, {"config": []}, {"config": {"num_replicas": "3"}}])
def test_an_odd_stream_info_is_named_and_covered_by_fail_open(serve: Serve, info: object) -> None:
    server = serve(lambda published: None)
    server.answer = lambda published: [Reply(b"", compact_json(info))]  # type: ignore[arg-type]
    with pytest.raises(UnexpectedReply, match="JetStream's API"):
        cache_on(server).get("key")
    cache = cache_on(server, FAIL_OPEN=True)
    assert cache.get("key", "default") == "default"
    assert cache.stats().entries == 0


def test_an_increment_with_an_odd_acknowledgement_is_resent_with_its_id(
    serve: Serve, counters_on: Callable[..., Counters]
) -> None:
    answers = [b'{"stream":"C","seq":"7","val":"5"}', b'{"stream":"C","seq":7,"val":"5"}']
    server = serve(lambda published: [Reply(b"", answers.pop(0))])
    counters_on(server)
    assert Counter("k").incr() == 5
    sent = [each for each in server.published if each.subject == "c.k"]
    first, second = (wire.field(each.header, "Nats-Msg-Id") for each in sent)
    assert first == second


# Whose answer it is --------------------------------------------------------------------------


def swapping(published: Published, waiting: list[Published]) -> list[Reply | bytes]:
    """Answer two direct gets with each other's message."""
    waiting.append(published)
    if len(waiting) < 2:
        return []
    return [
        Reply(*stored(other.subject.partition("GET.KV_b.")[2])[:2], b"", each.reply.encode())
        for each, other in zip(waiting, reversed(waiting), strict=True)
    ]


async def test_swapped_answers_are_rejected(serve: Serve) -> None:
    waiting: list[Published] = []
    cache = cache_on(serve(lambda published: swapping(published, waiting)))
    found = await asyncio.gather(cache.aget("a"), cache.aget("b"), return_exceptions=True)
    assert [type(each) for each in found] == [UnexpectedReply] * 2
    assert "asked for $KV.b.=.1.a" in str(found[0])


def test_a_message_of_another_key_is_not_copied(serve: Serve) -> None:
    answers = ["$KV.b.=.1.another", "$KV.b.=.1.k"]
    cache = cache_on(serve(lambda published: [stored(answers.pop(0))]))
    from django_nats.client.kv.copies import Bounds, Copies

    copies = Copies(Bounds(), lambda key: True)
    copies.opened(0)
    copies.proven(time.monotonic() + 100, EVERYTHING)
    cache.bucket._near_caches.copies = [copies]
    try:
        with pytest.raises(UnexpectedReply):
            cache.get("k")
        assert (len(copies), copies._attempts) == (0, {})
        assert cache.get("k") == 1
        assert len(copies) == 1
    finally:
        cache.bucket._near_caches.copies = []


def test_get_many_rejects_an_answer_of_another_subject(serve: Serve) -> None:
    asked = stored("$KV.b.=.1.a")
    for foreign in ("$KV.b.=.1.c", "$KV.other.=.1.a", "c.a"):
        cache = cache_on(serve(lambda _, other=foreign: [asked, stored(other), END]))
        with pytest.raises(UnexpectedReply, match="answer is of another subject"):
            cache.get_many(["a", "b"])


def test_a_timestamp_far_ahead_does_not_expire_other_values(serve: Serve) -> None:
    def answer(published: Published) -> list[Reply]:
        subject = published.subject.partition("GET.KV_b.")[2]
        when = time.time() + (10**8 if subject.endswith("odd") else 0)
        header = stored(subject).header.replace(b"2026-01-02T03:04:05Z", stamp(when).encode())
        return [Reply(header.replace(b"Nats: ", b"Nats: ;ms=60000"), b"1")]

    cache = cache_on(serve(answer))
    assert cache.get("a") == 1
    before = cache.bucket.clock.now()
    assert cache.get("odd") == 1
    assert cache.get("a") == 1
    assert cache.bucket.clock.now() - before < 10**6


@pytest.mark.parametrize("when", [b"now", b"1969-01-01T00:00:00Z", b"9999-01-01T00:00:00Z", LONG])
def test_an_invalid_timestamp_is_named(serve: Serve, when: bytes) -> None:
    def answer(published: Published) -> list[Reply]:
        header = stored(published.subject.partition("GET.KV_b.")[2]).header
        return [Reply(header.replace(b"2026-01-02T03:04:05Z", when), b"1")]

    with pytest.raises(UnexpectedReply, match="not a time"):
        cache_on(serve(answer)).get("key")


# The connection ------------------------------------------------------------------------------

GREETINGS = {
    "no JSON": b"INFO {",
    "not UTF-8": b'INFO {"max_payload":1,"version":"\xff"}',
    "no object": b"INFO [1]",
    "no max_payload": b"INFO {}",
    "a text for it": b'INFO {"max_payload":"1048576"}',
    "true for it": b'INFO {"max_payload":true}',
    "a negative one": b'INFO {"max_payload":-1}',
    "a huge one": b'INFO {"max_payload":%d}' % 2**63,
    "a long one": b'INFO {"max_payload":%b}' % LONG,
    "odd URLs": b'INFO {"max_payload":1048576,"connect_urls":7}',
    "an odd version": b'INFO {"max_payload":1048576,"version":"\\u001b[2J"}',
    "nested": b'INFO {"max_payload":' + b"[" * 20_000 + b"}",
    "no INFO": b"HTTP/1.1 400 Bad Request",
}


@pytest.mark.parametrize("greeting", GREETINGS.values(), ids=GREETINGS.keys())
def test_an_odd_greeting_fails_the_connection(serve: Serve, greeting: bytes) -> None:
    server = serve(lambda published: None, greeting=greeting)
    with pytest.raises(NotSent, match="No connection to NATS") as raised:
        cache_on(server).get("key")
    assert "attribute" not in str(raised.value)
    assert cache_on(server, FAIL_OPEN=True).get("key", "default") == "default"


def test_the_error_names_the_odd_field_of_a_greeting(serve: Serve) -> None:
    server = serve(lambda published: None, greeting=GREETINGS["a text for it"])
    with pytest.raises(NotSent, match="The field max_payload of the server's INFO is a text"):
        cache_on(server).get("key")


def test_a_login_error_that_is_not_utf_8_fails_the_connection(serve: Serve) -> None:
    server = serve(lambda published: None, login=b"-ERR '\xff\xfe'\r\n")
    with pytest.raises(NotSent, match="not UTF-8"):
        cache_on(server).get("key")


def connected(serve: Serve) -> tuple[FakeServer, NatsCache]:
    server = serve(lambda published: [stored(published.subject.partition("GET.KV_b.")[2])])
    cache = cache_on(server)
    assert cache.get("key") == 1
    return server, cache


@pytest.mark.parametrize(
    "line",
    [
        b"INFO {\r\n",
        b"INFO []\r\n",
        b'INFO {"max_payload":"x"}\r\n',
        b"-ERR '\xff'\r\n",
        b"MSG x 1 %b\r\n" % LONG,
        b"MSG x 1 %d\r\n" % 2**40,
    ],
    ids=["no JSON", "no object", "no number", "an odd error", "a long size", "a huge size"],
)
def test_an_odd_line_ends_the_connection_and_the_next_one_serves(
    serve: Serve, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server, cache = connected(serve)
    lost = cache.session.connection.lost
    server.say(line)
    assert eventually(lost.done)

    def served() -> bool:
        try:
            return bool(cache.get("key") == 1)
        except Unavailable:
            return False

    assert eventually(served)
    assert server.connections == 2
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


def test_a_larger_max_payload_in_a_later_info_is_used(serve: Serve) -> None:
    server, cache = connected(serve)
    assert cache.session.max_payload == 1024 * 1024
    server.say(GREETING.replace(b"1048576", b"8388608") + b"\r\n")
    assert eventually(lambda: cache.session.max_payload == 8 * 1024 * 1024)
    assert cache.get("key") == 1


def test_a_message_over_max_payload_fails_only_its_request(serve: Serve) -> None:
    """The message is discarded, and later requests use the same connection."""
    large = 4 * 1024 * 1024

    def answer(published: Published) -> list[Reply]:
        subject = published.subject.partition("GET.KV_b.")[2]
        return [stored(subject, payload=b"x" * large if subject.endswith("large") else b"1")]

    server = serve(answer)
    cache = cache_on(server)
    assert cache.get("key") == 1
    with pytest.raises(UnexpectedReply, match=r"announced a message of 4194\d+ bytes"):
        cache.get("large")
    assert cache.get("key") == 1
    assert server.connections == 1


def test_an_endless_batch_is_given_up(serve: Serve) -> None:
    """The client gives up after a fixed number of bytes, however long the batch goes on."""
    goes_on = threading.Event()

    def answer(published: Published) -> Iterator[Reply]:
        reply = stored("$KV.b.=.1.a", payload=b"x" * 1024 * 1024)
        while not goes_on.is_set():
            yield reply

    server = serve(answer)
    try:
        with pytest.raises(UnexpectedReply, match="far too many bytes"):
            cache_on(server).get_many(["a", "b"])
    finally:
        goes_on.set()
