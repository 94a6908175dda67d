"""Messages that are published together, and whose acknowledgements are read together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import django_nats.client
from django_nats.client.protocol import wire
from django_nats.client.protocol.parser import ProtocolError
from django_nats.client.protocol.runs import ReadRun
from django_nats.client.protocol.steps import Answer, Lane, Publications, Request
from django_nats.client.protocol.wire import Reply
from django_nats.client.transport import pending
from django_nats.client.transport.incoming import Incoming
from django_nats.client.transport.pending import Outstanding
from django_nats.client.transport.waiter import Waiter
from django_nats.exceptions import NatsError, NotSent, OutcomeUnknown, ValueTooLarge
from tests.client.protocol.test_parser import cut
from tests.support.interrupting import disturb, interrupted

LANE = Lane("a lane", 2)
INBOX = b"_INBOX.x."
HEADER = b"NATS/1.0\r\nA: b\r\n\r\n"
MOST = 1000


class Table(Outstanding):
    """A table that records woken waiters and all other lines. Its tokens are numbers."""

    def __init__(self) -> None:
        self.made = 0
        self.woken: list[int] = []
        self.lines: list[bytes] = []
        super().__init__(lambda sid: None)
        self.open(INBOX)
        self.incoming = Incoming(self, self.lines.append, lambda: None)
        self.incoming.limit(MOST)

    def _new_token(self) -> bytes:
        self.made += 1
        return b"%012d" % self.made

    def ask(self, requests: list[Request] | Publications, max_payload: int = MOST) -> Waiter:
        number = len(self.woken)
        waiter = Waiter(requests, lambda: self.woken.append(number))
        self.frames: list[bytes] = []
        self.size = self.enlist(waiter, self.frames, max_payload)
        return waiter

    def hear(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.incoming.receive([piece])


def publications(count: int, stream: bytes = b"KV_b") -> Publications:
    subjects = [b"$KV.b.%d" % number for number in range(count)]
    payloads = [b"v" * number for number in range(count)]
    return Publications(LANE, stream, subjects, payloads, [HEADER] * count)


def ack(waiter: Waiter, index: int, sequence: int, stream: bytes = b"KV_b") -> bytes:
    return msg(waiter.keys[index], b'{"stream":"%b","seq":%d}' % (stream, sequence))


def msg(subject: bytes, payload: bytes) -> bytes:
    return b"MSG %b 1 %d\r\n%b\r\n" % (subject, len(payload), payload)


# Enlisting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("max_payload", [MOST, len(HEADER) + 4])
def test_publications_have_the_frames_of_their_requests(max_payload: int) -> None:
    """If one of them is too large, each is checked separately."""
    together, singly = Table(), Table()
    first = together.ask(publications(6), max_payload)
    second = singly.ask(list(publications(6)), max_payload)
    assert together.frames == singly.frames or max_payload == MOST
    assert sorted(map(len, together.frames)) == sorted(map(len, singly.frames))
    assert (together.size, len(together)) == (singly.size, len(singly))
    assert together.size == sum(map(len, together.frames))
    assert list(map(type, first.answers)) == list(map(type, second.answers))


def test_each_publication_is_answered_on_a_subject_of_its_own() -> None:
    table = Table()
    waiter = table.ask(publications(3))
    assert len(set(waiter.keys)) == len(table) == 3
    assert table.frames == [
        wire.publish_frame(request.subject, key, request.header, request.payload)
        for request, key in zip(publications(3), waiter.keys, strict=True)
    ]
    assert table.waiters() == {waiter}
    assert set(table.ask(publications(300)).keys).isdisjoint(waiter.keys)


def test_an_oversized_publication_fails_alone() -> None:
    table = Table()
    waiter = table.ask(publications(3), len(HEADER) + 1)
    assert [type(each) for each in waiter.answers] == [type(None), type(None), ValueTooLarge]
    table.hear(ack(waiter, 0, 5) + ack(waiter, 1, 6))
    assert waiter.answers[:2] == [5, 6]
    assert table.woken == [0]


def test_a_publication_with_a_subject_that_is_too_long_fails_alone() -> None:
    table = Table()
    subjects = [b"a", b"s" * wire.MAX_CONTROL_LINE_BYTES]
    waiter = table.ask(Publications(LANE, b"S", subjects, [b"", b""], [HEADER, HEADER]))
    assert [type(each) for each in waiter.answers] == [type(None), ValueTooLarge]


def test_publications_that_cannot_be_framed_leave_nothing_behind() -> None:
    table = Table()
    broken = publications(3)
    broken.payloads[1] = "text"  # type: ignore[call-overload]  # as by a bug
    waiter = table.ask(broken)
    assert [type(each) for each in waiter.answers] == [NotSent] * 3
    assert (table.frames, table.size, len(table), table.woken) == ([], 0, 0, [0])


# Taking --------------------------------------------------------------------------------------


def test_acknowledgements_that_follow_each_other_are_read_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = Table()
    taken: list[Reply] = []
    take = table.take

    def noted(sid: bytes, reply: Reply) -> ReadRun | None:
        taken.append(reply)
        return take(sid, reply)

    monkeypatch.setattr(table.incoming._parser, "_message", noted)
    waiter = table.ask(publications(50))
    table.hear(b"".join(ack(waiter, index, 95 + index) for index in range(50)))
    assert waiter.answers == list(range(95, 145))
    assert (table.woken, len(table), waiter.unanswered) == ([0], 0, 0)
    # The first of two digits, and the first of three.
    assert [reply.subject for reply in taken] == [waiter.keys[0], waiter.keys[5]]


def test_an_answer_that_says_more_is_a_reply() -> None:
    table = Table()
    waiter = table.ask(publications(5))
    payloads = [
        b'{"stream":"KV_b","seq":11,"duplicate":true}',
        b'{"error":{"code":400,"err_code":10077,"description":"full"},"stream":"KV_b","seq":0}',
        b'{"stream":"KV_c","seq":12}',
        b"",
    ]
    odd = [msg(waiter.keys[1 + at], payload) for at, payload in enumerate(payloads)]
    table.hear(ack(waiter, 0, 10) + b"".join(odd))
    assert waiter.answers == [
        10,
        *(Reply(b"", each, b"", waiter.keys[1 + at]) for at, each in enumerate(payloads)),
    ]
    assert table.woken == [0]


def test_an_acknowledgement_by_another_stream_is_a_reply() -> None:
    table = Table()
    waiter = table.ask(publications(4, b"KV_c"))
    data = [ack(waiter, index, 10 + index, b"KV_c") for index in range(4)]
    data[1:3] = ack(waiter, 1, 11), ack(waiter, 2, 12)
    table.hear(b"".join(data))
    assert [type(each) for each in waiter.answers] == [int, Reply, Reply, int]


def test_an_answer_counts_once() -> None:
    table = Table()
    waiter = table.ask(publications(4))
    table.hear(ack(waiter, 1, 11) + ack(waiter, 0, 10) + ack(waiter, 1, 12))
    assert waiter.answers == [10, 11, None, None]
    table.hear(ack(waiter, 0, 13) + ack(waiter, 2, 14) + ack(waiter, 2, 15) + ack(waiter, 3, 16))
    assert waiter.answers == [10, 11, 14, 16]
    assert (table.woken, len(table)) == ([0], 0)


def test_each_waiter_gets_its_own_answers() -> None:
    table = Table()
    one, two = table.ask(publications(3)), table.ask(publications(3))
    data = [ack(one, 0, 10), ack(one, 1, 11), ack(two, 0, 12), ack(one, 2, 13), ack(two, 1, 14)]
    table.hear(b"".join(data))
    assert (one.answers, two.answers) == ([10, 11, 13], [12, 14, None])
    table.forget(two)
    table.hear(ack(two, 2, 15))
    assert (one.answers, two.answers, len(table)) == ([10, 11, 13], [12, 14, None], 0)


def test_a_waiter_that_is_forgotten_is_not_answered() -> None:
    table = Table()
    gone, other = table.ask(publications(3)), table.ask(publications(2))
    table.hear(ack(gone, 0, 10))
    table.forget(gone)
    table.hear(ack(gone, 1, 11) + ack(gone, 2, 12) + ack(other, 0, 13) + ack(other, 1, 14))
    assert (gone.answers, other.answers) == ([10, None, None], [13, 14])


def test_an_error_while_acknowledgements_are_read_fails_their_waiter_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise LookupError("a bug")

    table = Table()
    one, two = table.ask(publications(3)), table.ask([Request(LANE, "s")])
    monkeypatch.setattr(pending, "read_acknowledgements", broken)
    table.hear(ack(one, 0, 10) + ack(one, 1, 11) + ack(one, 2, 12) + msg(two.keys[0], b"hello"))
    assert [type(each) for each in one.answers] == [int, OutcomeUnknown, OutcomeUnknown]
    assert two.answers == [Reply(b"", b"hello", b"", two.keys[0])]
    assert (table.woken, len(table)) == ([0, 0], 0)
    assert [(record.levelname, record.exc_info is None) for record in caplog.records] == [
        ("ERROR", False)
    ]


# Any bytes -----------------------------------------------------------------------------------

# Two of publications, one of requests, one of publications in another stream.
ASKED: list[Callable[[], list[Request] | Publications]] = [
    lambda: publications(9),
    lambda: publications(4),
    lambda: list(publications(2)),
    lambda: publications(4, b"KV_c"),
]

junk = st.sampled_from(
    [b"", b"0", b"1", b"9", b"-", b" ", b"\r\n", b"}", b'"', b"_", b"\xb2", b"MSG ", b"PING\r\n"]
)

ODDITIES = ["twice", "error", "none", "stream", "digits", "line"]


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Return possible answers of a server: mostly acknowledgements in order, and odd ones."""
    table = Table()
    waiters = [table.ask(requests()) for requests in ASKED]
    order = [(w, i) for w, waiter in enumerate(waiters) for i in range(len(waiter.requests))]
    if draw(st.booleans()):
        order = draw(st.permutations(order))
    sequence = draw(st.sampled_from([1, 8, 95, 9_990, 10**18, 10**19 - 3]))
    frames = []
    for w, index in order:
        stream = b"KV_c" if w == 3 else b"KV_b"
        kind = draw(st.sampled_from(["ack"] * 12 + ODDITIES))
        frame = ack(waiters[w], index, sequence, b"KV_d" if kind == "stream" else stream)
        if kind == "digits":
            digits = b":%d}" % sequence
            garbled = draw(st.sampled_from([b"0", b"-", b" ", b"_", b"\xb2", b"}"]))
            at = draw(st.integers(1, len(digits) - 1))
            frame = frame.replace(digits, digits[:at] + garbled + digits[at + 1 :])
        if kind == "error":
            frame = msg(waiters[w].keys[index], b'{"error":{"code":400},"stream":"KV_b","seq":0}')
        elif kind == "line":
            frame += b"PING\r\n"
        frames.append(b"" if kind == "none" else frame * (2 if kind == "twice" else 1))
        sequence += draw(st.sampled_from([1, 1, 1, 2, 70]))
    return b"".join(frames)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = draw(answers())
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        data = data[:start] + draw(junk) + data[start + draw(st.integers(0, 3)) :]
    return data


def heard(pieces: list[bytes], *, singly: bool = False) -> tuple[object, ...]:
    """Return the outcome of the requests, and all other lines. ``singly``: sent as lists."""
    table = Table()
    waiters = [table.ask(list(each()) if singly else each()) for each in ASKED]
    error = ""
    try:
        table.hear(*pieces)
    except ProtocolError as raised:
        error = str(raised)
    return (
        [list(map(with_sequence, waiter.answers)) for waiter in waiters],
        [waiter.unanswered for waiter in waiters],
        table.woken,
        [key for waiter in waiters for key in waiter.keys if key in table._waiting],
        table.lines,
        table.incoming._parser.held,
        error,
    )


def with_sequence(answer: Answer | None) -> object:
    """Return an answer as the steps of an operation understand it."""
    if isinstance(answer, Reply):
        for stream in (b"KV_b", b"KV_c"):
            with suppress(NatsError):
                return wire.parse_ack(answer, stream).sequence
    return answer


@settings(max_examples=600, deadline=None)
@given(mutated(), st.lists(st.integers(0, 3000), max_size=6))
def test_any_bytes_are_read_together_as_one_by_one(data: bytes, at: list[int]) -> None:
    pieces = cut(data, at)
    assert heard(pieces) == heard(pieces, singly=True)


@settings(max_examples=100, deadline=None)
@given(answers())
def test_bytes_that_arrive_singly_are_read_as_together(data: bytes) -> None:
    pieces = [data[at : at + 1] for at in range(len(data))]
    assert heard(pieces) == heard([data])


# Interrupted ---------------------------------------------------------------------------------

_CLIENT = str(Path(django_nats.client.__file__).parent)


class Woken:
    """A caller that waits for a lock, as callers of the package do."""

    def __init__(self, table: Table, requests: list[Request] | Publications) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.waiter = Waiter(requests, self.lock.release)
        table.enlist(self.waiter, [], MOST)


def test_readers_interrupted_anywhere_wake_every_waiter() -> None:
    """At most one waiter loses answers. It gets the others.

    Nothing else would wake a waiter that has left the table.
    """
    at = continued = given_up = 0
    while True:
        at += 1
        table = Table()
        table._loop_thread_id = 0  # the parser runs on the thread of a caller
        asked = [Woken(table, publications(4)), Woken(table, publications(5))]
        asked.append(Woken(table, [Request(LANE, "s")]))
        waiters = [each.waiter for each in asked]
        data = b"".join(
            ack(waiter, index, 8 + index) for waiter in waiters for index in range(len(waiter.keys))
        )
        piece = [data]
        where = interrupted(lambda: table.incoming.receive(piece), at, _CLIENT)  # noqa: B023
        if where and table.incoming.can_continue(piece):
            continued += 1
            table.incoming.receive(piece)
            assert len(table) == 0, where
        elif where:
            given_up += 1
            for waiter in table.drain():
                waiter.fail(OutcomeUnknown("The connection is lost"))
        for each in asked:
            assert each.lock.acquire(blocking=False), where
            assert each.waiter.is_answered()
        lost = [waiter for waiter in waiters if any(map(is_error, waiter.answers))]
        if not where:
            assert [waiter.answers for waiter in waiters[:2]] == [
                [8, 9, 10, 11],
                [8, 9, 10, 11, 12],
            ]
            break
        if table.incoming.can_continue(piece):
            assert len(lost) <= 1, where
        for waiter in waiters[:2]:
            for index, answer in enumerate(waiter.answers):
                assert is_error(answer) or answer == 8 + index, where
    assert continued > 100
    assert given_up < 15


def test_a_sender_interrupted_anywhere_takes_no_answer_from_another() -> None:
    """The requests of an interrupted call are forgotten by the keys of its messages."""
    at = 0
    while True:
        at += 1
        table = Table()
        table._loop_thread_id = 0
        gone = Waiter(publications(4), lambda: None)
        where = interrupted(lambda: table.enlist(gone, [], MOST), at, _CLIENT)  # noqa: B023
        if not where:
            break
        other = table.ask(publications(4))
        table.forget(gone)
        table.hear(b"".join(ack(other, index, 8 + index) for index in range(4)))
        assert other.answers == [8, 9, 10, 11], where
        assert len(table) == 0, where
    assert at > 15


def test_a_request_that_a_finalizer_sends_meanwhile_has_a_subject_of_its_own() -> None:
    """An iteration that is collected as garbage sends one, and may do so between any two lines.

    The lock does not keep it out, since its thread has the lock.
    """
    at = 0
    while True:
        at += 1
        table = Table()
        waiter = Waiter(publications(4), lambda: None)
        others: list[Waiter] = []
        disturb(
            lambda: table.enlist(waiter, [], MOST),  # noqa: B023
            at,
            pending.__file__,
            lambda place: others.append(table.ask([Request(LANE, "s")])),  # noqa: B023
        )
        if not others:
            break
        assert len(table) == len({*waiter.keys, *others[0].keys}) == 5
    assert at > 10


def is_error(answer: Answer | None) -> bool:
    return isinstance(answer, NatsError)
