"""In whatever order reads, writes and the feed meet, no copy is older than what is known."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.client.interleaving import (
    Actor,
    World,
    delete,
    eviction,
    failing_fill,
    fill,
    foreign_clear,
    foreign_delete,
    foreign_put,
    in_doubt,
    interleavings,
    own_clear,
    put,
    refused,
    reopening,
)

OWN: dict[str, Actor] = {
    "put": put,
    "delete": delete,
    "clear": own_clear,
    "refused": refused,
    **in_doubt,
}
FOREIGN: dict[str, Actor] = {
    "put": foreign_put,
    "delete": foreign_delete,
    "clear": foreign_clear,
}
OTHERS: dict[str, Sequence[Actor]] = {
    "two reads, two changes": (fill, fill, foreign_put, foreign_delete),
    "two reads, a clear": (fill, fill, foreign_clear),
    "two reads, an eviction": (fill, fill, foreign_put, eviction),
    "two reads, an own write": (fill, fill, put),
    "two reads, an own delete": (fill, fill, delete),
    "two own writes": (put, delete, foreign_put),
    "a read that fails": (failing_fill, put, foreign_delete),
}
ANEW: dict[str, Sequence[Actor]] = {
    "a write": (fill, put, foreign_delete, reopening),
    "a delete": (fill, delete, foreign_put, reopening),
    "a write in doubt": (fill, in_doubt["put, applied after"], reopening),
    "a clear": (fill, foreign_clear, reopening),
}

START = pytest.mark.parametrize(
    "start",
    [
        pytest.param({"misses": False}, id="copied"),
        pytest.param({"misses": True}, id="copied, misses too"),
        pytest.param({"misses": True, "warm": False}, id="no value, misses too"),
    ],
)


@START
@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("own", OWN)
def test_a_read_an_own_write_and_anothers(own: str, foreign: str, start: dict[str, bool]) -> None:
    actors = (fill, OWN[own], FOREIGN[foreign])
    assert sum(1 for _ in interleavings(lambda: World(actors, **start))) >= 200


@START
@pytest.mark.parametrize("what", OTHERS)
def test_more_at_the_same_time(what: str, start: dict[str, bool]) -> None:
    assert sum(1 for _ in interleavings(lambda: World(OTHERS[what], **start))) >= 200


@pytest.mark.parametrize("what", ANEW)
def test_while_the_feed_is_opened_anew(what: str) -> None:
    assert sum(1 for _ in interleavings(lambda: World(ANEW[what]))) >= 200
