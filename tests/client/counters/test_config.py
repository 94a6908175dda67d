"""The configuration of counter streams on a real server: a limit of bytes, and who is asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from django_nats.client import drivers
from django_nats.client.counters.config import nearly_full
from django_nats.client.protocol.steps import Request, Steps
from django_nats.counters import Counter, Counters
from django_nats.exceptions import CounterUnavailable, UnexpectedReply
from tests.counters.conftest import Configure, configure, counters, stream_info
from tests.support.answers import document, finish
from tests.support.counting import from_leader, opened

__all__ = ["configure", "counters"]

NAMES = ["a", "b", "c"]


# MAX_BYTES -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "stored", "words"),
    [
        (-1, 10**9, None),
        (1000, 799, None),
        (1000, 800, "80% of MAX_BYTES are used"),
        (1000, 1000, "100% of MAX_BYTES are used"),
    ],
)
def test_a_stream_is_nearly_full_at_80_percent(limit: int, stored: int, words: str | None) -> None:
    found = nearly_full({"max_bytes": limit}, {"bytes": stored})
    assert (found or "").startswith(words or "")
    assert (found is None) is (words is None)


def test_beyond_max_bytes_the_counter_that_rested_longest_restarts_at_0(
    configure: Configure, counters: Counters
) -> None:
    limit = 64 * 1024
    counters = configure(MAX_BYTES=limit, HISTORY=1)
    Counter("rests").incr(5)
    Counter("lives").incr(5)
    size = stream_info(counters)["state"]["bytes"] // 2

    for number in range(limit // size):
        counters.incr_later(f"new.{number}")
        if number == limit // size // 2:
            counters.flush()
            assert Counter("lives").incr() == 6
    counters.flush()

    assert stream_info(counters)["state"]["bytes"] <= limit
    assert Counter("rests").value() == 0
    assert Counter("lives").value() == 6
    assert Counter("rests").incr() == 1


# READS ---------------------------------------------------------------------------------------


def asked_for(counters: Counters, steps: Steps[Any]) -> set[str]:
    """Return the subjects of the requests that an operation on an open stream sends."""
    subjects = set()

    def recording() -> Steps[None]:
        answer = None
        while True:
            try:
                effect = steps.send(answer)
            except StopIteration:
                return
            requests = effect if isinstance(effect, list) else [effect]
            subjects.update(each.subject.decode() for each in requests)
            answer = yield effect

    drivers.run(counters.session, recording())
    return subjects


@pytest.mark.usefixtures("counters")
def test_reads_leader_asks_only_the_leader(configure: Configure) -> None:
    """Any replica may answer DIRECT.GET. Only the stream's leader answers these requests."""
    counters = configure(READS="leader")
    name = counters.settings.stream.stream
    for counter in NAMES:
        Counter(counter).incr(3)
    stream = counters.stream
    get, info = f"$JS.API.STREAM.MSG.GET.{name}", f"$JS.API.STREAM.INFO.{name}"

    assert asked_for(counters, stream.value("a")) == {get}
    assert asked_for(counters, stream.get_many(NAMES)) == {get}
    assert asked_for(counters, stream.sources("a")) == {get}
    assert asked_for(counters, stream.matching(">")) == {get, info}
    assert asked_for(counters, stream.total("*")) == {get, info}
    anywhere = configure().stream
    Counter("a").value()  # opens the stream
    assert asked_for(counters, anywhere.value("a")) == {
        f"$JS.API.DIRECT.GET.{name}.{counters.settings.stream.prefix}.a"
    }


@pytest.mark.usefixtures("counters")
def test_reads_leader_reads_what_any_replica_has(configure: Configure) -> None:
    counters = configure(READS="leader")
    assert counters.matching(">") == {}
    totals = {f"page.{number}": number + 1 for number in range(300)}
    for counter, total in totals.items():
        counters.incr_later(counter, total)
    counters.flush()
    Counter("other").incr()

    assert counters.matching("page.*") == totals
    assert counters.total("page.>") == sum(totals.values())
    assert counters.get_many(["page.1", "none"]) == {"page.1": 2, "none": 0}
    assert counters.total(">") == sum(totals.values()) + 1
    seats = Counter("page.9")
    assert (seats.value(), seats.take(10), seats.take()) == (10, True, False)


def page(subjects: list[str], total: int) -> Any:
    return document({"total": total, "state": {"subjects": dict.fromkeys(subjects, 1)}})


def test_the_leader_lists_counters_in_pages() -> None:
    """A server lists at most 100,000 subjects at once."""
    replies = [page(["c.a", "c.b"], 3), page(["c.c"], 3)]
    messages = [from_leader(number + 7, number, name) for number, name in enumerate(NAMES)]
    steps = opened(reads="leader").matching(">")
    totals, asked = finish(steps, *replies, messages)
    assert totals == {"a": 0, "b": 1, "c": 2}
    assert [json.loads(each.payload)["offset"] for each in asked if isinstance(each, Request)] == [
        0,
        2,
    ]


def test_a_page_that_is_empty_is_the_last() -> None:
    """The other counters were reset meanwhile."""
    replies = [page(["c.a"], 3), page([], 1)]
    assert finish(opened(reads="leader").total(">"), *replies, [from_leader(7, 4, "a")])[0] == 4


def test_a_list_of_other_subjects_is_refused() -> None:
    steps = opened(reads="leader").matching("a.*")
    with pytest.raises(CounterUnavailable, match="another subject") as caught:
        finish(steps, page(["c.b.x"], 1))
    assert isinstance(caught.value.__cause__, UnexpectedReply)
