"""Who waits for which reply: on bytes, without a server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from django_nats.client import wire
from django_nats.client.outstanding import INBOX_SID, Outstanding
from django_nats.client.steps import Lane, Request
from django_nats.client.waiter import Waiter
from django_nats.client.wire import Reply
from django_nats.exceptions import NotSent, OutcomeUnknown, PermissionDenied, ValueTooLarge

LANE = Lane("a lane", 2)
INBOX = b"_INBOX.x."
MOST = 1000


class Interruption(Exception):
    """What a signal's handler raises: Celery's soft time limit is an Exception too."""


class Table(Outstanding):
    """With who has been woken, and which subscriptions were ended."""

    def __init__(self) -> None:
        self.ended: list[bytes] = []
        self.woken: list[str] = []
        super().__init__(self.ended.append)
        self.open(INBOX)

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


def test_the_deadline_is_the_lanes(table: Table) -> None:
    waiter = table.ask("one", request()).waiter
    assert waiter.deadline == waiter.sent + LANE.timeout


@pytest.mark.parametrize(
    ("unfit", "says"),
    [
        (request(b"x" * (MOST + 1)), "1001 bytes"),
        (request(b"x" * MOST, header=b"H"), "max_payload"),
        (request(subject="s" * wire.MAX_CONTROL_LINE), "too long"),
    ],
)
def test_an_unfit_request_fails_alone(table: Table, unfit: Request, says: str) -> None:
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


def test_nothing_but_unfit_requests_is_answered_at_once(table: Table) -> None:
    asked = table.ask("one", request(b"x" * (MOST + 1)))
    assert (asked.frames, asked.size, len(table), table.woken) == ([], 0, 0, ["one"])


def test_what_cannot_be_made_a_frame_leaves_nothing_behind(table: Table) -> None:
    broken = Request(LANE, "s", "text")  # type: ignore[arg-type]  # as a bug would have it
    before = table.ask("before", request())
    waiter = Waiter([request(), broken, request()], lambda: table.woken.append("broken"))
    frames = [b"of another"]
    assert table.enlist(waiter, frames, MOST) == 0
    assert frames == [b"of another"]
    assert [type(each) for each in waiter.answers] == [NotSent] * 3
    assert table.woken == ["broken"]
    assert table.waiters() == {before.waiter}


def test_what_interrupts_a_caller_who_enlists_reaches_it(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> bytes:
        raise Interruption

    monkeypatch.setattr(wire, "publish_frame", interrupted)
    assert raised_on_another_thread(lambda: table.ask("one", request())) is Interruption


# Taking --------------------------------------------------------------------------------------


def test_a_reply_is_taken_once_and_by_who_asked(table: Table) -> None:
    one, two = table.ask("one", request()).waiter, table.ask("two", request()).waiter
    table.hear(b"_INBOX.x.3", b"first")
    table.hear(b"_INBOX.x.3", b"second")
    assert two.answers == [Reply(b"", b"first", b"", b"_INBOX.x.3")]
    assert one.answers == [None]
    assert (table.woken, len(table)) == (["two"], 1)


@pytest.mark.parametrize("subject", [b"", b"_INBOX.x.", b"_INBOX.x.99", b"2", b"_INBOX.y.2"])
def test_what_nobody_waits_for_is_nobodys(table: Table, subject: bytes) -> None:
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


def test_every_reply_moves_the_deadline(table: Table) -> None:
    waiter = table.ask("one", request(gather=9)).waiter
    table.heard += 100
    table.hear(b"_INBOX.x.2", b"1")
    assert waiter.deadline == table.heard + LANE.timeout


def test_an_error_in_ones_wake_harms_nobody_else(
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
    """What a caller sees that reads for itself: the table was made on the loop's thread."""
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
def test_who_was_not_woken_is_when_its_reader_is_interrupted(
    table: Table, when: str, kind: type[BaseException]
) -> None:
    """By the reader: taken out of the table, it is known to nobody else."""
    lock = threading.Lock()
    lock.acquire()
    turns = [kind()]

    def wake() -> None:
        if when == "before" and turns:
            raise turns.pop()
        lock.release()  # twice, it raises an error of its own
        if turns:
            raise turns.pop()

    waiter = table.ask("one", request(), wake=wake).waiter
    assert raised_on_another_thread(lambda: table.hear(b"_INBOX.x.2", b"1")) is kind
    assert lock.acquire(blocking=False)
    assert waiter.answers == [Reply(b"", b"1", b"", b"_INBOX.x.2")]
    assert waiter.is_answered()
    assert len(table) == 0


def test_who_was_interrupted_while_gathering_waits_no_longer(
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


# Giving up -----------------------------------------------------------------------------------


def test_forgetting_ends_what_is_open_and_nothing_else(table: Table) -> None:
    gone = table.ask("gone", request(), request(gather=2, inbox=True), request()).waiter
    other = table.ask("other", request()).waiter
    table.hear(b"_INBOX.x.2")
    table.forget(gone)
    table.forget(gone)
    assert (table.ended, table.waiters()) == ([b"3"], {other})
    table.take(b"3", Reply(b"", b"late"))
    table.hear(b"_INBOX.x.4", b"late")
    assert table.woken == []


def test_draining_names_everyone_once(table: Table) -> None:
    one = table.ask("one", request(), request()).waiter
    two = table.ask("two", request()).waiter
    assert table.drain() == {one, two}
    assert (len(table), table.drain()) == (0, set())
    table.hear(b"_INBOX.x.2")
    assert one.answers == [None, None]


def test_only_what_is_named_is_refused(table: Table) -> None:
    asked = table.ask("one", request(subject="a.B"), request(subject="a.b.c")).waiter
    other = table.ask("other", request(subject="a.b"), request(subject="c")).waiter
    table.refuse('permissions violation for publish to "a.b"')
    assert [type(each) for each in asked.answers] == [PermissionDenied, type(None)]
    assert [type(each) for each in other.answers] == [PermissionDenied, type(None)]
    assert (len(table), table.woken) == (2, [])
