"""What a reader of changes finds in its mailbox, whatever comes between two steps."""

from __future__ import annotations

from typing import Any

import pytest

from django_nats.client import mailbox as module
from django_nats.client.mailbox import Mailbox
from tests.support.interrupting import interrupted

STREAM: dict[str, Any] = {"created": "today", "state": {"last_seq": 4}, "config": {}}


def opened() -> Mailbox:
    """One that has told of its first gap."""
    mailbox = Mailbox()
    mailbox.position(STREAM)
    mailbox.opened()
    assert mailbox.take() == [None]
    mailbox.proven(module.monotonic())
    return mailbox


def test_who_waits_is_called_once_and_let_go() -> None:
    mailbox = opened()
    calls: list[int] = []
    mailbox.tell(lambda: calls.append(1))
    assert calls == []
    mailbox.changed("a", 5, b"")
    mailbox.changed("a", 6, b"")
    assert calls == [1]
    assert not mailbox._wakes
    mailbox.tell(lambda: calls.append(2))  # there is something already
    assert calls == [1, 2]
    assert not mailbox._wakes


def test_two_may_call_who_waits_at_once() -> None:
    mailbox = opened()
    calls: list[int] = []

    def wake() -> None:
        calls.append(1)
        if len(calls) == 1:
            mailbox.changed("b", 6, b"")  # as by another thread, or a signal's handler

    mailbox.tell(wake)
    mailbox.changed("a", 5, b"")
    assert len(calls) == 2
    assert not mailbox._wakes


def change(mailbox: Mailbox) -> None:
    mailbox.changed("a", 5, b"")


@pytest.mark.parametrize("most", [10, 0], ids=["with room", "without room"])
def test_what_a_signals_handler_interrupts_is_told_and_nobody_sleeps_on(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost by that, and the next feed goes on where the mailbox says."""
    monkeypatch.setattr(module, "MOST", most)
    at, where = 1, "begin"
    while where:
        mailbox, woken = opened(), []
        mailbox.tell(lambda woken=woken: woken.append(1))  # type: ignore[misc]
        where = interrupted(lambda mailbox=mailbox: change(mailbox), at, module.__file__)  # type: ignore[misc]
        start = mailbox.position(STREAM | {"state": {"last_seq": 5}})["opt_start_seq"]
        mailbox.opened()
        assert woken, where
        told = [each.revision for each in mailbox.take() if each is not None]
        assert told == [5] or start <= 5, where
        at += 1
    assert at > 4


def test_what_is_thrown_away_is_never_without_its_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
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
