"""Counters that are the sum of those in other regions, on real servers of each kind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from django_nats.client import bridge
from django_nats.client.sources import SourceLag, lags_of
from django_nats.client.steps import Request, Steps
from django_nats.counters import Counter, Counters
from django_nats.devserver import NatsServer
from django_nats.exceptions import (
    CounterMismatch,
    CounterUnavailable,
    ReadOnlyCounter,
    Unavailable,
)
from tests.counters.conftest import api_level, stream_info
from tests.servers import ROOT, eventually
from tests.support.regions import LeafNodes, burst

SOON = 30.0  # seconds
LATER = 100.0  # for what a server does only after it has waited for an answer in vain


@pytest.fixture(autouse=True)
def _counting(server: NatsServer) -> None:
    if api_level(server) < 2:
        pytest.skip("the server is too old for counters")


Here = Callable[..., None]


@pytest.fixture
def here(settings: Any, own_server: NatsServer) -> Here:
    """Sets up eu, us, and world, which is their sum, all on one server."""

    def here(**world: object) -> None:
        place = {"LOCATION": own_server.url, "TOKEN": own_server.token}
        settings.NATS_COUNTERS = {
            "eu": {**place, "STREAM": "EU"},
            "us": {**place, "STREAM": "US"},
            "world": {**place, "STREAM": "WORLD", "SOURCES": ["EU", "US"], **world},
        }

    here()
    for region in ("eu", "us"):  # what is not there yet is looked for again only seconds later
        hits(region).value()
    return here


def hits(alias: str) -> Counter:
    return Counter("hits", alias=alias)


def becomes(counter: Counter, total: int, seconds: float = SOON) -> bool:
    return is_so(lambda: counter.value() == total, seconds)


def is_so(happened: Callable[[], bool], seconds: float = SOON) -> bool:
    def look() -> bool:
        with suppress(Unavailable):  # a server that starts again
            return happened()
        return False

    return eventually(look, seconds)


def api(alias: str, subject: str) -> None:
    """A request to the JetStream API where an alias is."""
    counters = Counters(alias)

    def steps() -> Steps[None]:
        reply = yield counters.stream.api_request(f"$JS.API.{subject}")
        assert json.loads(reply.payload)["success"]

    bridge.run(counters.session, steps())


def lags(alias: str = "world") -> dict[str, SourceLag]:
    """How each source keeps up, by name."""
    counters = Counters(alias)
    sources = counters.settings.stream.sources
    return {each.name: each for each in lags_of(stream_info(counters), sources)}


# Streams of one server -----------------------------------------------------------------------


@pytest.mark.smoke
def test_a_sum_of_streams(here: Here) -> None:
    world = hits("world")
    assert world.value() == 0
    assert world.sources() == {}
    assert hits("eu").incr(5) == 5
    assert hits("us").incr(-2) == -2
    assert becomes(world, 3)
    assert world.sources() == {"EU": 5, "US": -2}
    Counter("buys", "tea.green", alias="us").incr(10**30)
    assert becomes(Counter("buys", "tea.green", alias="world"), 10**30)
    assert Counters("world").matching(">") == {"hits": 3, ("buys", "tea.green"): 10**30}
    assert Counters("world").total("hits") == 3
    assert Counters("world").get_many(["hits", "none"]) == {"hits": 3, "none": 0}


async def test_what_a_sum_is_made_of_asynchronously(here: Here) -> None:
    hits("eu").incr()
    assert becomes(hits("world"), 1)
    assert await hits("world").asources() == {"EU": 1}


def test_a_sum_cannot_be_changed(here: Here) -> None:
    hits("eu").incr()
    world = hits("world")
    assert becomes(world, 1)
    for change in (world.incr, world.decr, world.reset, world.take, lambda: world.set(5)):
        with pytest.raises(ReadOnlyCounter, match=r"hits of the stream WORLD is the sum of"):
            change()
    assert world == 1


def test_a_sum_drops_nothing_as_a_duplicate(here: Here) -> None:
    """Whatever comes again brings its source's total, and must be taken."""
    assert stream_info(Counters("world"))["config"]["duplicate_window"] <= 10**8


def test_bursts_from_several_processes(here: Here, settings: Any) -> None:
    world = hits("world")
    assert world == 0
    with burst(settings.NATS_COUNTERS, ["eu", "us"], "hits", processes=3, times=300):
        pass
    assert becomes(world, 1800)
    assert world.sources() == {"EU": 900, "US": 900}


def test_a_sum_of_sums(here: Here, settings: Any) -> None:
    world = settings.NATS_COUNTERS["world"]
    galaxy = {**world, "STREAM": "GALAXY", "SOURCES": ["WORLD"]}
    settings.NATS_COUNTERS = {**settings.NATS_COUNTERS, "galaxy": galaxy}
    assert hits("galaxy") == hits("world") == 0
    hits("eu").incr(1)
    hits("us").incr(2)
    assert becomes(hits("galaxy"), 3)
    assert hits("galaxy").sources() == {"WORLD": 3}


def test_a_stream_may_be_added_up_by_parts(here: Here) -> None:
    here(SOURCES=[{"STREAM": "EU", "PREFIX": "eu.de"}, {"STREAM": "EU", "PREFIX": "eu.fr"}])
    assert hits("world") == 0
    Counter("de.hits", alias="eu").incr(1)
    Counter("fr.hits", alias="eu").incr(2)
    Counter("it.hits", alias="eu").incr(4)
    assert becomes(hits("world"), 3)
    assert hits("world").sources() == {"EU": 3}


# What becomes of a region --------------------------------------------------------------------


def test_a_region_that_is_added_brings_what_it_has_counted(here: Here) -> None:
    here(SOURCES=["EU"])
    hits("us").incr(5)
    for total in (1, 2, 3):  # the sum goes on, so that its latest message is the newest
        hits("eu").incr()
        assert becomes(hits("world"), total)
    existing = stream_info(Counters("world"))["config"]

    here(SOURCES=["EU", "US"])
    with pytest.raises(CounterMismatch, match=r"is the sum of EU \(eu\.> as world\.>\), and in "):
        hits("world").value()
    world = Counters("world")
    bridge.run(world.session, world.stream.update(existing))

    assert becomes(hits("world"), 8)
    assert hits("world").sources() == {"EU": 3, "US": 5}


@pytest.mark.parametrize(
    "change", [{"PREFIX": "other"}, {"SOURCES": [{"STREAM": "EU", "PREFIX": "x"}, "US"]}], ids=str
)
def test_a_sum_of_something_else_is_refused(here: Here, change: dict[str, object]) -> None:
    assert hits("world") == 0
    here(**change)
    with pytest.raises(CounterMismatch, match=r"WORLD exists, but is the sum of EU"):
        hits("world").value()


def test_a_purge_shows_at_the_next_increment(here: Here) -> None:
    hits("eu").incr(10)
    hits("us").incr(1)
    assert becomes(hits("world"), 11)
    hits("eu").reset()
    hits("us").incr(1)
    assert becomes(hits("world"), 12)
    assert hits("world").sources() == {"EU": 10, "US": 2}
    hits("eu").incr(3)
    assert becomes(hits("world"), 5)


def test_a_region_that_was_made_anew(here: Here, own_server: NatsServer) -> None:
    hits("us").incr()
    assert becomes(hits("world"), 1)
    for _ in range(5):
        hits("eu").incr()
    assert becomes(hits("world"), 6)
    api("eu", "STREAM.DELETE.EU")
    assert hits("eu").incr(100) == 100
    # Which makes the server look at its sources at once, instead of in 10 to 20 seconds.
    own_server.restart()
    if api_level(own_server) < 5:  # it cannot tell the stream from the one there was
        hits("us").incr()
        assert becomes(hits("world"), 7)
        assert hits("world").sources() == {"EU": 5, "US": 2}
        hits("us").decr()
    else:
        assert becomes(hits("world"), 101)
    for _ in range(5):  # until its sequence is past the old one's
        hits("eu").incr()
    assert becomes(hits("world"), 106)


def test_a_sum_that_is_deleted_is_made_anew(here: Here) -> None:
    for total in (1, 2, 3):
        hits("eu").incr()
        assert becomes(hits("world"), total)
    hits("us").incr(5)
    assert becomes(hits("world"), 8)
    api("eu", "STREAM.DELETE.EU")
    hits("eu").incr()

    api("world", "STREAM.DELETE.WORLD")

    assert becomes(hits("world"), 6)
    assert hits("world").sources() == {"EU": 1, "US": 5}


def test_a_purge_of_the_sum_leaves_out_who_does_not_count(here: Here) -> None:
    hits("eu").incr(5)
    hits("us").incr(2)
    assert becomes(hits("world"), 7)
    api("world", "STREAM.PURGE.WORLD")
    assert hits("world") == 0
    hits("eu").incr()
    assert becomes(hits("world"), 6)
    hits("us").incr()
    assert becomes(hits("world"), 9)


def test_how_the_sources_keep_up(here: Here) -> None:
    here(SOURCES=["EU", "US", "NEVER"])
    hits("eu").incr()
    hits("us").incr()
    assert becomes(hits("world"), 2)
    assert eventually(lambda: lags()["EU"].error is lags()["US"].error is None, SOON)
    eu = lags()["EU"]
    assert eu.lag == 0
    assert eu.silence is not None
    assert 0 <= eu.silence < 10
    assert eventually(lambda: lags()["NEVER"].error == "stream not found", SOON)
    assert lags()["NEVER"].silence is None
    assert list(lags()) == ["EU", "NEVER", "US"]
    assert lags("eu") == {}


# Accounts ------------------------------------------------------------------------------------


@pytest.fixture
def accounts(settings: Any) -> Iterator[NatsServer]:
    """A server configured as the docs recommend, with accounts eu and us, whose sum is world."""
    page = (ROOT / "docs/how-to/regions.md").read_text()
    (config,) = re.findall(r"^```text\n(accounts \{\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    with NatsServer(token="", config=config) as server:
        place = {"LOCATION": server.url, "PASSWORD": "s3cret"}
        sources = [
            {"STREAM": "COUNTERS", "API_PREFIX": "eu.API", "DELIVER_PREFIX": "deliver.eu"},
            {"STREAM": "COUNTERS", "API_PREFIX": "us.API", "DELIVER_PREFIX": "deliver.us"},
        ]
        settings.NATS_COUNTERS = {
            "eu": {**place, "USER": "eu"},
            "us": {**place, "USER": "us"},
            "world": {**place, "USER": "world", "SOURCES": sources},
        }
        yield server
        bridge.close()


@pytest.mark.smoke
def test_a_sum_of_accounts(accounts: NatsServer, settings: Any) -> None:
    world = hits("world")
    hits("eu").incr()
    hits("us").incr()
    assert becomes(world, 2)
    with burst(settings.NATS_COUNTERS, ["eu", "us"], "hits", processes=2, times=200):
        pass
    assert becomes(world, 802)
    assert world.sources() == {"COUNTERS@eu": 401, "COUNTERS@us": 401}
    assert {name: lag.error for name, lag in lags().items()} == {
        "COUNTERS@eu": None,
        "COUNTERS@us": None,
    }

    # So many bytes that the source waits for word from the sum, and stops for ever without.
    padded_increments("eu", 60)
    assert becomes(world, 862)

    accounts.kill()
    accounts.start()
    hits("us").incr()
    assert becomes(world, 863)
    assert world.sources() == {"COUNTERS@eu": 461, "COUNTERS@us": 402}


def padded_increments(alias: str, times: int) -> None:
    """Increments with 40 kB of other headers each."""
    counters = Counters(alias)
    subject = f"{counters.settings.stream.prefix}.hits"
    header = f"NATS/1.0\r\nNats-Incr: 1\r\nPadding: {'x' * 40_000}\r\n\r\n".encode()

    def steps() -> Steps[None]:
        replies = yield [Request(counters.stream.writes, subject, b"", header)] * times
        assert all("val" in json.loads(reply.payload) for reply in replies)

    bridge.run(counters.session, steps())


# Domains joined by leaf nodes ----------------------------------------------------------------


@pytest.fixture
def leaf_nodes(settings: Any) -> Iterator[LeafNodes]:
    """Regions eu and us, whose sum is world, in the hub."""
    with LeafNodes("eu", "us") as servers:
        sources = [{"STREAM": "EU", "DOMAIN": "eu"}, {"STREAM": "US", "DOMAIN": "us"}]
        settings.NATS_COUNTERS = {
            "eu": {"LOCATION": servers.leaves["eu"].url, "STREAM": "EU", "DEADLINE": 20},
            "us": {"LOCATION": servers.leaves["us"].url, "STREAM": "US", "DEADLINE": 1},
            "world": {"LOCATION": servers.hub.url, "STREAM": "WORLD", "SOURCES": sources},
        }
        yield servers
        bridge.close()


@pytest.mark.smoke
def test_a_sum_of_domains(leaf_nodes: LeafNodes, settings: Any) -> None:
    world = hits("world")
    hits("eu").incr(5)
    hits("us").incr(2)
    assert becomes(world, 7)
    with burst(settings.NATS_COUNTERS, ["eu", "us"], "hits", processes=2, times=200):
        pass
    assert becomes(world, 807)
    assert world.sources() == {"EU": 405, "US": 402}
    assert {name: lag.error for name, lag in lags().items()} == {"EU": None, "US": None}


def test_a_region_that_is_away(leaf_nodes: LeafNodes) -> None:
    world = hits("world")
    hits("eu").incr(5)
    hits("us").incr(2)
    assert becomes(world, 7)
    leaf_nodes.leaves["us"].kill()
    with pytest.raises(CounterUnavailable):
        hits("us").incr()
    hits("eu").incr()
    assert becomes(world, 8)
    assert world.sources() == {"EU": 6, "US": 2}


@pytest.mark.faults
def test_outages_and_restarts(leaf_nodes: LeafNodes, settings: Any) -> None:
    """A region counts on while its link is cut, the hub dies in the midst of another's burst, and
    all comes together in the end. With servers from 2.14 on, that takes most of a minute."""
    world = hits("world")
    hits("eu").incr(5)
    hits("us").incr(2)
    assert becomes(world, 7)
    leaf_nodes.cut("eu")
    for _ in range(3):
        hits("eu").incr(10)
    hits("us").incr()
    assert becomes(world, 8)
    with burst(settings.NATS_COUNTERS, ["us"], "hits", processes=2, times=500):
        leaf_nodes.hub.kill()
        leaf_nodes.hub.start()
    assert is_so(lambda: lags()["EU"].error == "it has not been reached yet")
    leaf_nodes.join("eu")
    hits("us").incr()
    assert becomes(world, 35 + 1004, LATER)
    assert world.sources() == {"EU": 35, "US": 1004}
