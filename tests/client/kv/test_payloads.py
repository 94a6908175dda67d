"""A batch read at once gives the same result as read message by message, for any bytes."""

from __future__ import annotations

import re
from time import time
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from django_nats.client.kv import payloads
from django_nats.client.kv.entry import UNREADABLE
from django_nats.client.kv.lifetimes import Lifetimes
from django_nats.client.kv.payloads import PayloadReader
from django_nats.client.protocol.wire import Reply
from django_nats.client.streams.clock import Clock
from django_nats.client.transport.pending import INBOX_SID
from django_nats.exceptions import NatsError
from tests.conftest import MakeCache
from tests.support.answers import batch, opened, stored
from tests.support.wired import Wired, cut

KEYS = [f":1:{name}" for name in "abcdef"]
WRITER = "Django-Nats: json;ms=86400000\r\nNats-TTL: 86400\r\n"
NOW = time()
# No value expires while these tests run. Each has already expired, or lives for a day.
CONDITIONS = "Nats-Expected-Last-Subject-Sequence: 3\r\nNats-Msg-Id: 0123456789abcdef\r\n"
FORMATS = {
    "live": WRITER,
    "never": "Django-Nats: pickle\r\nNats-TTL: never\r\n",
    "short": "Django-Nats: json;ms=400\r\nNats-TTL: 1\r\n",
    "kept": f"Django-Nats: json;at={round(NOW + 86400) * 1000}\r\nNats-TTL: 86400\r\n",
    "unknown": "Django-Nats: json;xx=1\r\nNats-TTL: 9\r\n",
    "long": f"Django-Nats: {'x' * 80}\r\nNats-TTL: 9\r\n",
    "tombstone": "KV-Operation: DEL\r\n",
    "tombstone without a blank": "KV-Operation:DEL\r\n",
    "another client's": "",
    "another client's with a lifetime": "Nats-TTL: 86400\r\n",
    "conditional": f"{WRITER}{CONDITIONS}",
    "another client's, conditional": f"{WRITER}Nats-Msg-Id: x\r\n",
}


class Batch:
    """A request for KEYS, and the bytes that answer it."""

    def __init__(self, *, at_once: bool) -> None:
        self.bucket = opened()
        self.bucket.clock.due = float("inf")
        self.steps = self.bucket.get_payloads(KEYS)
        (request,) = next(self.steps)
        assert request.reader is not None
        if not at_once:
            request.reader = None
        self.reader = request.reader
        self.wired = Wired(request, b"token")

    def read(self, pieces: list[bytes]) -> object:
        """Return the result of the operation, or a description of its failure."""
        if failure := self.wired.failure(pieces):
            return failure
        try:
            self.steps.send(self.wired.waiter.answers)
        except StopIteration as end:
            return end.value
        except NatsError as error:
            return type(error).__name__
        return "asked again"


def frame(reply: Reply, subject: bytes = b"_INBOX.x.token") -> bytes:
    header, payload, _, _ = reply
    sizes = len(header), len(header) + len(payload)
    return b"HMSG %b 1 %d %d\r\n%b%b\r\n" % (subject, *sizes, header, payload)


plain = stored(1, "=.1.z", header=WRITER)
values = st.builds(
    stored,
    st.integers(1, 10**9),
    st.sampled_from(["=.1.a", "=.1.b", "=.1.c", "=.1.d", "=.1.e", "=.1.f", "=.1.f", "=.1.x"]),
    st.binary(max_size=20)
    | st.sampled_from([b"\r\nHMSG _INBOX.x.token 1 ", frame(plain), frame(plain)[:-2]]),
    st.sampled_from([WRITER] * 8 + list(FORMATS.values())),
    st.floats(NOW - 1000, NOW - 0.5),
)
frames = st.lists(
    st.one_of([values.map(frame)] * 8 + [values.map(lambda each: frame(each, b"_INBOX.x.other"))]),
    max_size=9,
    unique_by=lambda each: each.partition(b"Nats-Subject: ")[2].partition(b"\r")[0],
).map(b"".join)
ends = st.sampled_from([frame(batch()[0]), frame(batch(pending=1)[0]), b""])
junk = st.binary(max_size=6) | st.sampled_from([b"9" * 5000, b"-1", b"\r\n", b" ", b"1_0", b"00"])
cuts = st.lists(st.integers(0, 5000), max_size=4)


def both(pieces: list[bytes]) -> tuple[object, object]:
    """Return the result of reading at once, and that of reading message by message.

    No value corrects the clock, and no subject occurs twice, since a batch has the last messages.
    """
    subjects = re.findall(rb"Nats-Subject: \$KV\.b\.=\.1\.([a-f])\r", b"".join(pieces))
    assume(len(subjects) == len(set(subjects)))
    results = []
    for at_once in (True, False):
        each = Batch(at_once=at_once)
        offset = each.bucket.clock.offset
        results.append(each.read(pieces))
        assume(each.bucket.clock.offset == offset)
    return results[0], results[1]


@pytest.mark.once
@settings(max_examples=600, deadline=None)
@given(frames, ends, cuts)
def test_any_batch_cut_anywhere_is_read_alike(data: bytes, end: bytes, at: list[int]) -> None:
    at_once, singly = both(cut(data + end, at))
    assert at_once == singly


def test_a_batch_cut_at_any_byte_is_read_alike() -> None:
    """If the end of a value's last line is missing, the value is left to the parser."""
    replies = [stored(7, f"=.1.{name}", b"x", WRITER, NOW - 10) for name in "abcd"]
    data = b"".join([frame(each) for each in (*replies, batch()[0])])
    expected = {f":1:{name}": (b"x", "json") for name in "abcd"}
    for at in range(len(data)):
        assert Batch(at_once=True).read([data[:at], data[at:]]) == expected


@pytest.mark.once
@settings(max_examples=1000, deadline=None)
@given(frames, ends, cuts, st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 12), junk)))
def test_any_mutated_batch_is_read_alike(
    data: bytes, end: bytes, at: list[int], changes: list[tuple[int, int, bytes]]
) -> None:
    data += end
    for where, length, what in changes:
        start = where % (len(data) + 1)
        data = data[:start] + what + data[start + length :]
    at_once, singly = both(cut(data, at))
    assert at_once == singly


def messages(kind: str, count: int = 50) -> list[Reply]:
    names = [f"=.1.{number}" for number in range(count)]
    return [stored(7, each, b"x", FORMATS[kind], NOW - 10) for each in names]


def read_by_reader(replies: list[Reply], clock: Clock | None = None) -> PayloadReader:
    """Return a reader that has read these replies, except the first and the last."""
    subjects = [f"$KV.b.=.1.{number}" for number in range(len(replies))]
    reader = PayloadReader(subjects, clock or opened().clock, Lifetimes())
    data = b"".join([frame(each) for each in replies])
    reader.read_run(data, len(frame(replies[0])), b"_INBOX.x.token", INBOX_SID)
    return reader


PLAIN = {
    "live": "json",
    "never": "pickle",
    "kept": "json",
    "conditional": "json",
    "unknown": UNREADABLE,
    "long": "x" * 80,
}


@pytest.mark.parametrize(("kind", "format"), PLAIN.items())
def test_all_plain_values_of_a_batch_are_read_at_once(kind: str, format: str) -> None:
    reader = read_by_reader(messages(kind))
    assert reader.taken == {f"$KV.b.=.1.{number}": (b"x", format) for number in range(1, 49)}


@pytest.mark.parametrize("kind", sorted(FORMATS.keys() - PLAIN.keys()))
def test_everything_else_is_left_to_the_parser(kind: str) -> None:
    assert read_by_reader(messages(kind)).taken == {}


@pytest.mark.parametrize("change", [(2, 0, 0), (1, -1, 0), (1, 0, 1), (1, -1, -1)])
def test_a_reply_of_other_sizes_or_another_subscription_is_left_to_the_parser(
    change: tuple[int, int, int],
) -> None:
    replies = messages("live", 4)
    first, *others = [frame(each) for each in replies]
    sid, header_change, total_change = change
    header, payload, _, _ = replies[1]
    sizes = len(header) + header_change, len(header) + len(payload) + total_change
    control_line = b"HMSG _INBOX.x.token %d %d %d\r\n" % (sid, *sizes)
    odd = control_line + others[0].partition(b"\r\n")[2]
    subjects = [f"$KV.b.=.1.{number}" for number in range(4)]
    reader = PayloadReader(subjects, opened().clock, Lifetimes())
    data = b"".join([first, odd, *others[1:]])
    end = reader.read_run(data, len(first), b"_INBOX.x.token", INBOX_SID)
    assert (end, reader.taken) == (len(first), {})


def test_a_value_of_an_odd_batch_is_searched_only_a_few_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise the time for tombstones would grow with the square of the size of the batch."""
    looked: list[bytes] = []
    match = payloads._match_value

    def count(part: bytes) -> Any:
        looked.append(part)
        return match(part)

    monkeypatch.setattr(payloads, "_match_value", count)
    each = Batch(at_once=True)
    data = b"".join([frame(reply) for reply in messages("tombstone", 500)])
    each.read([data])
    assert 0 < len(looked) <= payloads._MOST_STOPS


def test_a_value_just_stored_and_one_about_to_expire_are_read_exactly() -> None:
    now = opened().clock.now()
    fresh = [stored(7, f"=.1.{n}", b"x", WRITER, now - 0.2) for n in range(4)]
    assert len(read_by_reader(fresh).taken) == 2
    ahead = [stored(7, f"=.1.{n}", b"x", WRITER, now + 60) for n in range(4)]
    assert read_by_reader(ahead).taken == {}


def test_a_value_ahead_of_the_clock_by_less_than_a_second_is_left_to_the_parser() -> None:
    clock = Clock()
    clock.now = lambda: 1_000_000.5  # type: ignore[method-assign]
    for stored_at, taken in ((1_000_000.4, 2), (1_000_000.9, 0)):
        replies = [stored(7, f"=.1.{n}", b"x", WRITER, stored_at) for n in range(4)]
        assert len(read_by_reader(replies, clock).taken) == taken


def test_a_value_with_an_impossible_date_is_left_to_the_parser() -> None:
    names = KEYS[0][3:], KEYS[1][3:], KEYS[2][3:]
    frames = [frame(stored(7, f"=.1.{name}", b"x", WRITER, NOW - 10)) for name in names]
    frames[1] = re.sub(rb"Time-Stamp: \d{4}-\d\d", b"Time-Stamp: 2026-13", frames[1])
    data = b"".join([*frames, frame(batch()[0])])
    assert [Batch(at_once=each).read([data]) for each in (True, False)] == ["UnexpectedReply"] * 2


def test_values_beyond_one_read_of_the_socket_are_all_found(make_cache: MakeCache) -> None:
    cache = make_cache()
    data = {f"key:{number}": "x" * (number % 700) for number in range(1500)}
    cache.set_many(data)
    cache.set_many({"gone:1": 1, "gone:2": 2}, None)
    cache.delete_many(["gone:1", "gone:2"])
    assert cache.get_many([*data, "gone:1", "gone:2", "missing"]) == data
