"""No copy is older than a known state, in every order of reads, writes and changes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.client.interleaving import (
    Actor,
    World,
    catching_up,
    delete,
    eviction,
    failing_fill,
    fill,
    foreign_clear,
    foreign_delete,
    foreign_put,
    in_doubt,
    interleavings,
    other_fill,
    own_clear,
    put,
    recreation,
    refused,
    reopening,
)

pytestmark = pytest.mark.once

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
REOPENED: dict[str, Sequence[Actor]] = {
    "a write": (fill, put, foreign_delete, reopening),
    "a delete": (fill, delete, foreign_put, reopening),
    "a write in doubt": (fill, in_doubt["put, applied after"], reopening),
    "a clear": (fill, foreign_clear, reopening),
}

RECREATED: dict[str, Sequence[Actor]] = {
    "two reads": (fill, fill, recreation),
    "a read, an own write": (fill, put, recreation),
    "a read, an own delete": (fill, delete, recreation),
    "a read, an own clear": (fill, own_clear, recreation),
    "another operation": (fill, other_fill, recreation),
    "a foreign write": (fill, foreign_put, recreation),
}

BEHIND: dict[str, Sequence[Actor]] = {
    "a read, a change": (fill, foreign_put, catching_up),
    "a read, two changes": (fill, foreign_put, foreign_delete, catching_up),
    "a read, a clear": (fill, foreign_clear, catching_up),
    "a read, an own write": (fill, put, catching_up),
    "a read, a reopened feed": (fill, foreign_put, reopening, catching_up),
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
def test_no_copy_is_stale_with_an_own_and_a_foreign_write(
    own: str, foreign: str, start: dict[str, bool]
) -> None:
    actors = (fill, OWN[own], FOREIGN[foreign])
    assert sum(1 for _ in interleavings(lambda: World(actors, **start))) >= 200


@START
@pytest.mark.parametrize("what", OTHERS)
def test_no_copy_is_stale_with_more_concurrent_operations(
    what: str, start: dict[str, bool]
) -> None:
    assert sum(1 for _ in interleavings(lambda: World(OTHERS[what], **start))) >= 200


@pytest.mark.parametrize("what", REOPENED)
def test_no_copy_is_stale_while_the_feed_is_reopened(what: str) -> None:
    assert sum(1 for _ in interleavings(lambda: World(REOPENED[what]))) >= 200


@START
@pytest.mark.parametrize("what", RECREATED)
def test_no_value_goes_back_while_the_stream_is_recreated(
    what: str, start: dict[str, bool]
) -> None:
    """The feed does not notice that at once, and revisions begin again."""
    assert sum(1 for _ in interleavings(lambda: World(RECREATED[what], **start))) >= 50


@START
@pytest.mark.parametrize("what", BEHIND)
def test_no_copy_is_stale_while_the_leader_is_behind_the_feed(
    what: str, start: dict[str, bool]
) -> None:
    assert sum(1 for _ in interleavings(lambda: World(BEHIND[what], behind=True, **start))) >= 50
