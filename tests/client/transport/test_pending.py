"""Which reply answers which request, on bytes without a server."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable
from typing import Any

import pytest

from django_nats.client.kv.subjects import MAX_KEY_BYTES
from django_nats.client.protocol import wire
from django_nats.client.protocol.steps import Follow, Lane, Request
from django_nats.client.protocol.wire import Reply
from django_nats.client.streams.scan import BATCH
from django_nats.client.transport import pending
from django_nats.client.transport.pending import INBOX_SID, Outstanding
from django_nats.client.transport.waiter import SMALL_REPLY_BYTES, Waiter
from django_nats.exceptions import (
    LimitReached,
    NotSent,
    OutcomeUnknown,
    PermissionDenied,
    UnexpectedReply,
    ValueTooLarge,
)

LANE = Lane("a lane", 2)
INBOX = b"_INBOX.x."
MOST = 1000


class Interruption(Exception):
    """An exception raised by a signal handler, such as Celery's soft time limit."""


class Table(Outstanding):
    """A table that records woken waiters and ended subscriptions. Its tokens are numbers."""

    def __init__(self) -> None:
        self.made = 1
        self.ended: list[bytes] = []
        self.woken: list[str] = []
        super().__init__(self.ended.append)
        self.open(INBOX)
        self.max_reply_bytes = MOST

    def _new_token(self) -> bytes:
        self.made += 1
        return b"%d" % self.made

    def ask(self, name: str, *requests: Request, wake: Callable[[], object] | None = None) -> Asked:
        return Asked(self, Waiter(requests, wake or (lambda: self.woken.append(name))))

    def hear(self, subject: bytes, payload: bytes = b"", header: bytes = b"") -> None:
        self.take(INBOX_SID, Reply(header, payload, b"", subject))


class Asked:
    def __init__(self, table: Outstanding, waiter: Waiter) -> None:
        self.waiter = waiter
        self.frames: list[bytes] = []
        self.size = table.enlist(waiter, self.frames, MOST)


@pytest.fixture
def table() -> Table:
    return Table()


def request(payload: bytes = b"", subject: str = "s", **kwargs: Any) -> Request:
    return Request(LANE, subject, payload, **kwargs)


# Enlisting -----------------------------------------------------------------------------------


def test_frames_are_those_of_the_requests_each_on_a_subject_of_its_own(table: Table) -> None:
    one = table.ask("one", request(b"1"), request(b"2", header=b"H"))
    two = table.ask("two", request(b"3"))
    assert one.frames == [
        b"PUB s _INBOX.x.2 1\r\n1\r\n",
        b"HPUB s _INBOX.x.3 1 2\r\nH2\r\n",
    ]
    assert two.frames == [b"PUB s _INBOX.x.4 1\r\n3\r\n"]
    assert one.size == sum(map(len, one.frames))
    assert len(table) == 3
    assert table.waiters() == {one.waiter, two.waiter}


def test_an_inbox_is_subscribed_first(table: Table) -> None:
    pull = table.ask("pull", request(gather=2, inbox=True))
    assert pull.frames == [b"SUB _INBOX.x.2.pull 2\r\n", b"PUB s _INBOX.x.2.pull 0\r\n\r\n"]


def test_the_deadline_follows_from_the_lanes_timeout(table: Table) -> None:
    waiter = table.ask("one", request()).waiter
    assert waiter.deadline == waiter.sent + LANE.timeout


@pytest.mark.parametrize(
    ("unfit", "says"),
    [
        (request(b"x" * (MOST + 1)), "1001 bytes"),
        (request(b"x" * MOST, header=b"H"), "max_payload"),
        (request(subject="s" * wire.MAX_CONTROL_LINE_BYTES), "too long"),
    ],
)
def test_an_oversized_request_fails_alone(table: Table, unfit: Request, says: str) -> None:
    asked = table.ask("one", request(b"1"), unfit, request(b"x" * MOST))
    assert len(asked.frames) == len(table) == 2
    table.hear(b"_INBOX.x.2", b"one")
    table.hear(b"_INBOX.x.4", b"three")
    first, second, third = asked.waiter.answers
    assert (first, third) == (
        Reply(b"", b"one", b"", b"_INBOX.x.2"),
        Reply(b"", b"three", b"", b"_INBOX.x.4"),
    )
    assert isinstance(second, ValueTooLarge)
    assert says in str(second)
    assert table.woken == ["one"]


def test_a_list_of_oversized_requests_is_answered_at_once(table: Table) -> None:
    asked = table.ask("one", request(b"x" * (MOST + 1)))
    assert (asked.frames, asked.size, len(table), table.woken) == ([], 0, 0, ["one"])


def test_a_request_that_cannot_be_framed_leaves_nothing_behind(table: Table) -> None:
    broken = Request(LANE, "s", "text")  # type: ignore[arg-type]  # as by a bug
    before = table.ask("before", request())
    waiter = Waiter([request(), broken, request()], lambda: table.woken.append("broken"))
    frames = [b"of another"]
    assert table.enlist(waiter, frames, MOST) == 0
    assert frames == [b"of another"]
    assert [type(each) for each in waiter.answers] == [NotSent] * 3
    assert table.woken == ["broken"]
    assert table.waiters() == {before.waiter}


def test_an_interruption_while_enlisting_reaches_the_caller(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> bytes:
        raise Interruption

    monkeypatch.setattr(wire, "publish_frame", interrupted)
    assert raised_on_another_thread(lambda: table.ask("one", request())) is Interruption


def test_subjects_for_replies_cannot_be_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has 72 random bits from the system, so that earlier ones do not reveal it."""
    drawn: list[int] = []

    def urandom(size: int) -> bytes:
        drawn.append(size)
        return secrets.token_bytes(size)

    monkeypatch.setattr(pending.os, "urandom", urandom)
    table = Outstanding(lambda sid: None)
    table.open(INBOX)
    waiter = Waiter([request() for _ in range(1000)], lambda: None)
    frames: list[bytes] = []
    table.enlist(waiter, frames, MOST)
    tokens = [frame.split()[2].removeprefix(INBOX) for frame in frames]
    assert len(set(tokens)) == 1000
    assert all(re.fullmatch(rb"[-_A-Za-z0-9]{12}", each) for each in tokens)
    assert sum(drawn) >= 9 * 1000
    assert waiter.keys == [INBOX + each for each in tokens]


# Taking --------------------------------------------------------------------------------------


def test_a_reply_answers_its_own_request_once(table: Table) -> None:
    one, two = table.ask("one", request()).waiter, table.ask("two", request()).waiter
    table.hear(b"_INBOX.x.3", b"first")
    table.hear(b"_INBOX.x.3", b"second")
    assert two.answers == [Reply(b"", b"first", b"", b"_INBOX.x.3")]
    assert one.answers == [None]
    assert (table.woken, len(table)) == (["two"], 1)


@pytest.mark.parametrize("subject", [b"", b"_INBOX.x.", b"_INBOX.x.99", b"2", b"_INBOX.y.2"])
def test_a_reply_without_a_request_is_ignored(table: Table, subject: bytes) -> None:
    waiter = table.ask("one", request()).waiter
    table.hear(subject, b"?")
    table.take(b"77", Reply(b"", b"?", b"", b"_INBOX.x.2"))
    assert (waiter.answers, table.woken) == ([None], [])


def test_replies_are_gathered_up_to_their_number(table: Table) -> None:
    waiter = table.ask("one", request(gather=2)).waiter
    table.hear(b"_INBOX.x.2", b"1")
    assert table.woken == []
    table.hear(b"_INBOX.x.2", b"2")
    assert [each.payload for each in waiter.answers[0]] == [b"1", b"2"]  # type: ignore[union-attr]
    assert (table.woken, len(table)) == (["one"], 0)


def test_a_status_ends_gathering_and_its_subscription(table: Table) -> None:
    waiter = table.ask("pull", request(gather=9, inbox=True)).waiter
    table.take(b"2", Reply(b"", b"1", b"", b"$KV.b.k"))
    assert table.ended == []
    table.take(b"2", Reply(b"NATS/1.0 404 No Messages\r\n\r\n", b"", b"", b"_INBOX.x.2.pull"))
    assert len(waiter.answers[0]) == 2  # type: ignore[arg-type]
    assert (table.ended, table.woken, len(table)) == ([b"2"], ["pull"], 0)


@pytest.mark.parametrize("part", ["header", "payload"])
def test_gathering_ends_with_too_many_bytes(table: Table, part: str) -> None:
    """Small replies are limited by their number, larger ones by their total size."""
    asked = table.ask("pull", request(gather=4, inbox=True), request()).waiter
    table.max_reply_bytes = 3 * SMALL_REPLY_BYTES
    large = {part: b"NATS/1.0\r\n" + b"x" * 4 * SMALL_REPLY_BYTES}
    small = {part: b"NATS/1.0\r\n" + b"x" * (SMALL_REPLY_BYTES - 10)}
    for sizes in (large, small, large):
        table.take(b"2", Reply(sizes.get("header", b""), sizes.get("payload", b"")))
    assert isinstance(asked.answers[0], UnexpectedReply)
    assert (table.ended, table.woken, asked.unanswered) == ([b"2"], [], 1)
    table.take(b"2", Reply(b"", b"late"))
    table.hear(b"_INBOX.x.3", b"an answer")
    assert table.woken == ["pull"]
    assert isinstance(asked.answers[0], UnexpectedReply)


def test_a_whole_batch_of_the_longest_keys_is_gathered(table: Table) -> None:
    asked = table.ask("pull", request(gather=BATCH, inbox=True)).waiter
    fields = {wire.KEY_HEADER: wire.quote_key("é" * (MAX_KEY_BYTES // 2)), "Nats-TTL": "never"}
    reply = Reply(wire.header_block(fields), b"", b"$JS.ACK.KV_b.keys.1.1.1.1.1")
    for _ in range(BATCH):
        table.take(b"2", reply)
    assert asked.answers == [[reply] * BATCH]


def test_a_reply_that_is_too_large_fails_its_request_alone(table: Table) -> None:
    asked = table.ask("two", request(), request(gather=9, inbox=True), request()).waiter
    table.refuse_large(INBOX_SID, b"_INBOX.x.2", 10**6)
    table.refuse_large(b"3", b"$KV.b.k", 10**6)
    table.refuse_large(INBOX_SID, b"_INBOX.x.99", 10**6)
    assert [type(each) for each in asked.answers] == [UnexpectedReply] * 2 + [type(None)]
    assert "1000000 bytes" in str(asked.answers[0])
    assert (table.ended, asked.unanswered) == ([b"3"], 1)


def test_a_listener_is_called_for_a_message_that_is_too_large(table: Table) -> None:
    heard: list[Reply] = []
    sid, subject = table.subscriptions.listen(heard.append, lambda error: None)
    table.refuse_large(sid, subject, 10**6)
    assert heard == [Reply(b"", b"", b"", b"")]


def test_a_listener_is_called_when_its_reader_is_interrupted(table: Table) -> None:
    heard: list[Reply] = []
    sid, _ = table.subscriptions.listen(heard.append, lambda error: None)
    table.interrupt(sid, b"$KV.b.k")
    assert heard == [Reply(b"", b"", b"", b"")]


def test_every_reply_moves_the_deadline(table: Table) -> None:
    waiter = table.ask("one", request(gather=9)).waiter
    table.received_at += 100
    table.hear(b"_INBOX.x.2", b"1")
    assert waiter.deadline == table.received_at + LANE.timeout


def test_an_error_in_one_wake_does_not_affect_others(
    table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise LookupError("a bug")

    table.ask("broken", request(), wake=broken)
    other = table.ask("other", request()).waiter
    table.hear(b"_INBOX.x.2")
    table.hear(b"_INBOX.x.3")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert other.answers != [None]
    assert (table.woken, len(table)) == (["other"], 0)


# Interrupted ---------------------------------------------------------------------------------


def raised_on_another_thread(function: Callable[[], object]) -> type[BaseException] | None:
    """Return the error that a reading caller gets. The table belongs to the loop's thread."""
    raised: list[type[BaseException] | None] = []

    def call() -> None:
        try:
            function()
        except BaseException as error:
            raised.append(type(error))
        else:
            raised.append(None)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return raised[0]


@pytest.mark.parametrize("kind", [Interruption, KeyboardInterrupt])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_waiter_is_woken_when_its_reader_is_interrupted(
    table: Table, when: str, kind: type[BaseException]
) -> None:
    """The reader wakes it. Nothing else would, since the waiter is no longer in the table."""
    lock = threading.Lock()
    lock.acquire()
    turns = [kind()]

    def wake() -> None:
        if when == "before" and turns:
            raise turns.pop()
        lock.release()  # a second release raises an error of its own
        if turns:
            raise turns.pop()

    waiter = table.ask("one", request(), wake=wake).waiter
    assert raised_on_another_thread(lambda: table.hear(b"_INBOX.x.2", b"1")) is kind
    assert lock.acquire(blocking=False)
    assert waiter.answers == [Reply(b"", b"1", b"", b"_INBOX.x.2")]
    assert waiter.is_answered()
    assert len(table) == 0


def test_a_waiter_fails_when_gathering_is_interrupted(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise Interruption

    waiter = table.ask("pull", request(gather=3, inbox=True), request()).waiter
    monkeypatch.setattr(Waiter, "gather", interrupted)
    reply = Reply(b"", b"1", b"", b"$KV.b.k")
    assert raised_on_another_thread(lambda: table.take(b"2", reply)) is Interruption
    assert [type(each) for each in waiter.answers] == [OutcomeUnknown] * 2
    assert (table.woken, table.ended, len(table)) == (["pull"], [b"2"], 0)


class FailingReader:
    """A reader that raises."""

    count = 0

    def __init__(self, error: Exception) -> None:
        self.error = error

    def read_run(self, data: bytes, start: int, subject: bytes, sid: bytes) -> int:
        raise self.error


def test_an_error_in_a_reader_fails_its_request_only(
    table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    reader = FailingReader(ValueError("a fault"))
    waiter = table.ask("batch", request(gather=3, reader=reader)).waiter
    other = table.ask("other", request()).waiter
    read_run = table.take(INBOX_SID, Reply(b"", b"1", b"", b"_INBOX.x.2"))
    assert read_run is not None
    assert read_run(b"abc", 1) == 1
    assert isinstance(waiter.answers[0], OutcomeUnknown)
    assert (table.woken, table.waiters()) == (["batch"], {other})
    assert "could not handle a reply" in caplog.text


def test_a_waiter_fails_when_its_reader_is_interrupted(table: Table) -> None:
    reader = FailingReader(Interruption())
    waiter = table.ask("batch", request(gather=3, reader=reader)).waiter
    read_run = table.take(INBOX_SID, Reply(b"", b"1", b"", b"_INBOX.x.2"))
    assert read_run is not None
    assert raised_on_another_thread(lambda: read_run(b"abc", 1)) is Interruption
    assert (type(waiter.answers[0]), table.woken) == (OutcomeUnknown, ["batch"])


# Giving up -----------------------------------------------------------------------------------


def test_forgetting_ends_only_the_waiters_open_requests(table: Table) -> None:
    gone = table.ask("gone", request(), request(gather=2, inbox=True), request()).waiter
    other = table.ask("other", request()).waiter
    table.hear(b"_INBOX.x.2")
    table.forget(gone)
    table.forget(gone)
    assert (table.ended, table.waiters()) == ([b"3"], {other})
    table.take(b"3", Reply(b"", b"late"))
    table.hear(b"_INBOX.x.4", b"late")
    assert table.woken == []


def test_draining_returns_every_waiter_once(table: Table) -> None:
    one = table.ask("one", request(), request()).waiter
    two = table.ask("two", request()).waiter
    assert table.drain() == {one, two}
    assert (len(table), table.drain()) == (0, set())
    table.hear(b"_INBOX.x.2")
    assert one.answers == [None, None]


def test_only_requests_with_the_named_subject_are_refused(table: Table) -> None:
    asked = table.ask("one", request(subject="a.B"), request(subject="a.b.c")).waiter
    other = table.ask("other", request(subject="a.b"), request(subject="c")).waiter
    table.refuse('permissions violation for publish to "a.b"')
    assert [type(each) for each in asked.answers] == [PermissionDenied, type(None)]
    assert [type(each) for each in other.answers] == [PermissionDenied, type(None)]
    assert (len(table), table.woken) == (2, [])


def test_a_refused_request_ends_the_subscription_of_its_own(table: Table) -> None:
    asked = table.ask("one", request(subject="a", inbox=True), request(subject="a")).waiter
    table.refuse('permissions violation for publish to "a"')
    assert [type(each) for each in asked.answers] == [PermissionDenied] * 2
    assert table.ended == [b"2"]


def test_refused_subscriptions_are_ended_where_the_server_has_accepted_them(table: Table) -> None:
    refusal = LimitReached("maximum subscriptions exceeded")
    asked = [table.ask("a listing", request(inbox=True)).waiter for _ in range(2)]
    table.ask("other", request())
    table.refuse_keys(table.with_inboxes(), refusal)
    assert [each.answers for each in asked] == [[refusal], [refusal]]
    assert (table.ended, len(table)) == ([b"2", b"3"], 1)


def test_notices_make_room_before_a_refused_listing_is_failed(table: Table) -> None:
    """Otherwise the listing could begin again before the server has been told."""
    refusals: list[object] = []
    follow = Follow("changes", lambda _: None, refusals.append)
    table.ask("one that follows", request(follow=follow))
    asked = table.ask("a listing", request(inbox=True)).waiter
    refusal = LimitReached("maximum subscriptions exceeded")
    keys = table.with_inboxes()
    table.subscriptions.refuse_unheard(refusal)
    assert (refusals, len(table.ended), asked.answers) == ([refusal], 1, [None])
    table.hear(b"_INBOX.x.2")  # one is answered meanwhile
    table.refuse_keys([*keys, b"gone"], refusal)
    assert asked.answers == [refusal]
    assert table.woken == ["one that follows", "a listing"]
