"""The check of histories: valid ones pass, and stale reads and lost writes fail."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.nearcache.fleet import Stored
from tests.nearcache.history import ANY, Clear, Event, History, Read, Stale, Write, events_of

NEAR, OTHER, PLAIN = 0, 1, 2
STORED = {
    "k": [
        Stored(1, 10, 1.0, None),
        Stored(2, 20, 2.0, None),
        Stored(3, None, 3.0, None),
        Stored(5, 50, 5.0, 6.0),
        Stored(9, 90, 9.0, None),
    ]
}
CLEARED = [Stored(7, None, 7.0, None)]


def check(*events: Event) -> None:
    delay = {NEAR: 0.5, OTHER: 0.5, PLAIN: 0.0}
    History(STORED, CLEARED, events, epoch=0.0, delay=delay).check()


def read(value: int | None, at: float, process: int = NEAR) -> Read:
    return Read(process, "k", at, at + 0.1, value)


def wrote(value: object, at: float, process: int = NEAR) -> Write:
    return Write(process, "k", at - 0.01, at + 0.01, value)


VALID: dict[str, Sequence[Event]] = {
    "nothing at first": [read(None, 0.5)],
    "current values": [read(10, 1.5), read(20, 2.5), read(None, 3.5), read(50, 5.5)],
    "stale, without knowledge of a newer state": [read(10, 4.0), read(20, 4.1), read(None, 4.2)],
    "stale within the allowed delay": [wrote(20, 2.0, OTHER), read(10, 2.4)],
    "stale after a read of another process": [read(20, 2.1, OTHER), read(10, 2.3)],
    "before its own write is acknowledged": [Write(NEAR, "k", 1.99, 2.6, 20), read(10, 2.3)],
    "during its own write": [wrote(20, 2.0), Read(NEAR, "k", 1.9, 2.1, 10)],
    "an expired value": [read(50, 5.5), read(None, 6.1)],
    "a purged value before the clear is known": [Clear(OTHER, 6.1, 7.1, True), read(50, 5.9)],
    "after a write that keeps the value": [wrote(ANY, 5.0), read(50, 5.5)],
    "a clear that may have happened": [read(20, 2.1), Clear(NEAR, 2.3, 2.4, False), read(20, 2.5)],
    "a clear that may not have happened": [
        read(20, 2.1),
        Clear(NEAR, 2.3, 2.4, False),
        read(None, 2.5),
    ],
}
INVALID: dict[str, Sequence[Event]] = {
    "a value that was never there": [read(11, 1.5)],
    "a value from the future": [read(20, 1.5)],
    "a miss from the future": [read(10, 1.2), read(None, 2.5)],
    "older than its own write": [wrote(20, 2.0), read(10, 2.1)],
    "older than its own delete": [wrote(None, 3.0), read(20, 3.1)],
    "older than its own change": [wrote(ANY, 2.0), read(10, 2.1)],
    "a miss older than its own write": [wrote(20, 2.0), read(None, 2.1)],
    "back to an earlier value": [read(20, 2.1), read(10, 2.3)],
    "back to an earlier miss": [read(10, 1.1), read(None, 1.3)],
    "back from a miss": [read(20, 2.5), read(None, 3.1), read(20, 3.3)],
    "older than a write acknowledged long ago": [wrote(20, 2.0, OTHER), read(10, 2.6)],
    "without copies, older than an acknowledged write": [
        wrote(20, 2.0, OTHER),
        read(10, 2.1, PLAIN),
    ],
    "an expired value": [read(50, 6.1)],
    "a value after its own clear": [Clear(NEAR, 5.5, 7.1, True), read(50, 7.2)],
    "a value after another's clear long ago": [Clear(OTHER, 2.5, 2.6, True), read(20, 3.2)],
    "a lost write": [wrote(70, 7.0)],
}


@pytest.mark.parametrize("what", VALID)
def test_a_valid_history_passes(what: str) -> None:
    check(*VALID[what])


@pytest.mark.parametrize("what", INVALID)
def test_a_stale_read_or_lost_write_fails(what: str) -> None:
    with pytest.raises(Stale):
        check(*INVALID[what])


def test_operations_are_translated_to_events() -> None:
    def events(op: list[object], returned: object = None, error: str | None = None) -> list[Event]:
        done = {"op": op, "began": 1.0, "ended": 2.0, "returned": returned, "error": error}
        return sorted(events_of(NEAR, done))

    span = (1.0, 2.0)
    assert events(["get", "k"], 1) == [Read(NEAR, "k", *span, 1)]
    assert events(["get_many", ["j", "k"]], {"k": 1}) == [
        Read(NEAR, "j", *span, None),
        Read(NEAR, "k", *span, 1),
    ]
    assert events(["set", "k", 1, None]) == [Write(NEAR, "k", *span, 1)]
    assert events(["set_many", {"j": 1, "k": 2}, None], ["j"]) == [Write(NEAR, "k", *span, 2)]
    assert events(["add", "k", 1, None], True) == [Write(NEAR, "k", *span, 1)]
    assert events(["add", "k", 1, None], False) == []
    assert events(["delete", "k"], True) == [Write(NEAR, "k", *span, None)]
    assert events(["delete", "k"], False) == [Read(NEAR, "k", *span, None)]
    assert events(["delete_many", ["k"]]) == [Write(NEAR, "k", *span, None)]
    assert events(["touch", "k", 9], True) == [Write(NEAR, "k", *span, ANY)]
    assert events(["touch", "k", 9], False) == [Read(NEAR, "k", *span, None)]
    assert events(["incr", "k"], 2) == [Write(NEAR, "k", *span, 2)]
    assert events(["incr", "k"], None, "ValueError") == [Read(NEAR, "k", *span, None)]
    assert events(["get_or_set", "k", 1, None], 1) == []
    assert events(["get_or_set", "k", 1, None], 2) == [Read(NEAR, "k", *span, 2)]
    assert events(["clear"]) == [Clear(NEAR, *span, True)]
    assert events(["clear"], None, "OutcomeUnknown") == [Clear(NEAR, *span, False)]
    assert events(["set", "k", 1, None], None, "OutcomeUnknown") == []
