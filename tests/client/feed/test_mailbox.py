"""The mailbox of a reader of changes, also if a signal handler raises at any point."""

from __future__ import annotations

from typing import Any

import pytest

from django_nats.client.feed import mailbox as module
from django_nats.client.feed.mailbox import Mailbox
from tests.support.interrupting import interrupted

STREAM: dict[str, Any] = {"created": "today", "state": {"last_seq": 4}, "config": {}}


def opened() -> Mailbox:
    """Return a mailbox whose first gap has been taken."""
    mailbox = Mailbox()
    mailbox.position(STREAM)
    mailbox.opened(0)
    assert mailbox.take() == [None]
    mailbox.proven(module.monotonic(), 0)
    return mailbox


def test_a_callback_is_called_once_and_removed() -> None:
    mailbox = opened()
    calls: list[int] = []
    mailbox.notify(lambda: calls.append(1))
    assert calls == []
    mailbox.changed("a", 5, b"")
    mailbox.changed("a", 6, b"")
    assert calls == [1]
    assert not mailbox._callbacks
    mailbox.notify(lambda: calls.append(2))  # changes are queued already
    assert calls == [1, 2]
    assert not mailbox._callbacks


def test_two_threads_may_call_the_callbacks_at_once() -> None:
    mailbox = opened()
    calls: list[int] = []

    def wake() -> None:
        calls.append(1)
        if len(calls) == 1:
            mailbox.changed("b", 6, b"")  # as another thread or a signal handler may do

    mailbox.notify(wake)
    mailbox.changed("a", 5, b"")
    assert len(calls) == 2
    assert not mailbox._callbacks


def change(mailbox: Mailbox) -> None:
    mailbox.changed("a", 5, b"")


@pytest.mark.parametrize("most", [10, 0], ids=["with room", "without room"])
def test_after_an_interruption_changes_and_wakeups_are_not_lost(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost, and the next feed begins at the mailbox's position."""
    monkeypatch.setattr(module, "MAX_CHANGES", most)
    at, where = 1, "begin"
    while where:
        mailbox, woken = opened(), []
        mailbox.notify(lambda woken=woken: woken.append(1))  # type: ignore[misc]
        where = interrupted(lambda mailbox=mailbox: change(mailbox), at, module.__file__)  # type: ignore[misc]
        start = mailbox.position(STREAM | {"state": {"last_seq": 5}})["opt_start_seq"]
        mailbox.opened(0)
        assert woken, where
        reported = [each.revision for each in mailbox.take() if each is not None]
        assert reported == [5] or start <= 5, where
        at += 1
    assert at > 4


def test_dropped_changes_always_leave_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHANGES", 2)
    at, where = 1, "begin"
    while where:
        mailbox = opened()
        mailbox.changed("a", 3, b"")
        mailbox.changed("a", 4, b"")
        where = interrupted(lambda mailbox=mailbox: change(mailbox), at, module.__file__)  # type: ignore[misc]
        taken = mailbox.take()
        whole = [each.revision for each in taken if each is not None][:2] == [3, 4]
        assert whole or taken[:1] == [None], where
        at += 1
    assert at > 4
