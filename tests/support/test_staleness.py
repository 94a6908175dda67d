"""The judgement of reads under load."""

from __future__ import annotations

import pytest

from tests.support.staleness import UNKNOWN, History, Run, Write, judge


def run(number: int | None, began: float, ended: float | None = None) -> Run:
    ended = began + 0.1 if ended is None else ended
    return Run("k", number, ended, began, ended)


WRITTEN = History(
    [
        Write(1, 1.0, 1.1),
        Write(2, 2.0, 2.1),
        Write(3, 3.0, 3.1, deleted=True),
        Write(4, 4.0, UNKNOWN),
        Write(5, 5.0, 5.1),
    ]
)


@pytest.mark.parametrize(
    ("number", "began", "stale"),
    [
        (None, 0.5, -0.6),
        (None, 1.3, 0.2),
        (1, 1.0, -1.1),
        (1, 2.0, -0.1),  # while the next write was on its way
        (1, 2.5, 0.4),
        (2, 3.3, 0.2),
        (None, 3.2, -1.9),
        (None, 4.5, -0.6),  # the following write may not have been applied
        (None, 5.3, 0.2),
        (4, 99, 0),  # the write may be applied at any time
        (5, 99, -UNKNOWN),
    ],
)
def test_staleness_counts_from_the_acknowledged_successor(
    number: int | None, began: float, stale: float
) -> None:
    assert WRITTEN.staleness(run(number, began)) == pytest.approx(stale)


def test_a_missing_value_is_current_after_a_delete_of_unknown_outcome() -> None:
    history = History([Write(1, 1.0, 1.1), Write(2, 2.0, UNKNOWN, True), Write(3, 3.0, 3.1)])
    assert history.staleness(run(None, 1.5)) == pytest.approx(0.4)
    assert history.staleness(run(None, 9.0)) == 0


@pytest.mark.parametrize(
    ("number", "began", "why"),
    [(6, 9, "never written"), (2, 1.5, "before it was written"), (3, 3.5, "removed")],
)
def test_a_value_that_cannot_have_been_read_raises(number: int, began: float, why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        WRITTEN.staleness(run(number, began))


def test_the_verdict_names_the_stalest_read() -> None:
    verdict = judge({"k": WRITTEN}, [[run(1, 2.2)], [run(2, 3.5), run(5, 6)]])
    assert verdict.runs == 3
    assert verdict.worst == run(2, 3.5)
    assert verdict.stalest == pytest.approx(0.4)
    assert not verdict.backwards


def test_reads_that_go_back_to_an_older_value_are_reported() -> None:
    newer, older = run(2, 2.2), run(1, 2.4)
    assert judge({"k": WRITTEN}, [[newer, older]]).backwards == [(newer, older)]
    assert judge({"k": WRITTEN}, [[older, newer]]).backwards == [(newer, older)]
    assert not judge({"k": WRITTEN}, [[newer], [older]]).backwards  # of different processes
    assert not judge({"k": WRITTEN}, [[newer, run(1, 2.25)]]).backwards  # at the same time
    assert not judge({"k": WRITTEN}, [[run(5, 5.5), run(4, 5.7)]]).backwards  # applied late
    again = Run("k", 1, 1.3, 2.4, 2.5)  # found before, too
    assert judge({"k": WRITTEN}, [[newer, again]]).backwards == [(newer, again)]
