"""Counters that sum those of other regions: streams of one server, accounts and leaf nodes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from django_nats.client import drivers, process
from django_nats.client.counters.sources import SourceLag, lags_of
from django_nats.client.protocol.steps import Request, Steps
from django_nats.client.streams.differences import update
from django_nats.counters import Counter, Counters
from django_nats.devserver import NatsServer
from django_nats.exceptions import (
    CounterMismatch,
    CounterUnavailable,
    ReadOnlyCounter,
    Unavailable,
)
from tests.counters.conftest import PATIENT, api_level, stream_info
from tests.servers import ROOT, eventually
from tests.support.ports import free_port
from tests.support.regions import LeafNodes, burst

SOON_S = 60.0
LATER_S = 100.0  # for what a server does only after one of its own timeouts


@pytest.fixture(autouse=True)
def _requires_counters(server: NatsServer) -> None:
    if api_level(server) < 2:
        pytest.skip("the server is too old for counters")


OnOneServer = Callable[..., None]


@pytest.fixture
def on_one_server(settings: Any, own_server: NatsServer) -> OnOneServer:
    """Set up eu, us and their sum world on one server. Return a function to change world."""

    def configure(**world: object) -> None:
        common = {"LOCATION": own_server.url, "TOKEN": own_server.token, **PATIENT}
        settings.NATS_COUNTERS = {
            "eu": {**common, "STREAM": "EU"},
            "us": {**common, "STREAM": "US"},
            "world": {**common, "STREAM": "WORLD", "SOURCES": ["EU", "US"], **world},
        }

    configure()
    for region in ("eu", "us"):  # a source that is missing is retried only seconds later
        hits(region).value()
    return configure


def hits(alias: str) -> Counter:
    return Counter("hits", alias=alias)


def becomes(counter: Counter, total: int, seconds: float = SOON_S) -> bool:
    return soon(lambda: counter.value() == total, seconds)


def soon(happened: Callable[[], bool], seconds: float = SOON_S) -> bool:
    def check() -> bool:
        with suppress(Unavailable):  # while a server restarts
            return happened()
        return False

    return eventually(check, seconds)


def api(alias: str, subject: str) -> None:
    """Send a request to the JetStream API of an alias's server."""
    counters = Counters(alias)

    def steps() -> Steps[None]:
        reply = yield counters.stream.stream.api_request(f"$JS.API.{subject}")
        assert json.loads(reply.payload)["success"]

    drivers.run(counters.session, steps())


def lags(alias: str = "world") -> dict[str, SourceLag]:
    """Return how far each source lags, by name."""
    counters = Counters(alias)
    sources = counters.settings.stream.sources
    return {each.name: each for each in lags_of(stream_info(counters), sources)}


# Streams of one server -----------------------------------------------------------------------


@pytest.mark.smoke
def test_a_sum_adds_up_its_streams(on_one_server: OnOneServer) -> None:
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


async def test_asources_returns_the_parts_of_a_sum(on_one_server: OnOneServer) -> None:
    hits("eu").incr()
    assert becomes(hits("world"), 1)
    assert await hits("world").asources() == {"EU": 1}


def test_a_sum_cannot_be_changed(on_one_server: OnOneServer) -> None:
    hits("eu").incr()
    world = hits("world")
    assert becomes(world, 1)
    for change in (world.incr, world.decr, world.reset, world.take, lambda: world.set(5)):
        with pytest.raises(ReadOnlyCounter, match=r"hits of the stream WORLD is the sum of"):
            change()
    assert world == 1


def test_a_sum_has_almost_no_duplicate_window(on_one_server: OnOneServer) -> None:
    """A repeated message carries its source's total, so it must not be dropped as a duplicate."""
    assert stream_info(Counters("world"))["config"]["duplicate_window"] <= 10**8


def test_bursts_from_several_processes_are_summed_exactly(
    on_one_server: OnOneServer, settings: Any
) -> None:
    world = hits("world")
    assert world == 0
    with burst(settings.NATS_COUNTERS, ["eu", "us"], "hits", processes=3, times=300):
        pass
    assert becomes(world, 1800)
    assert world.sources() == {"EU": 900, "US": 900}


def test_a_sum_may_sum_other_sums(on_one_server: OnOneServer, settings: Any) -> None:
    world = settings.NATS_COUNTERS["world"]
    galaxy = {**world, "STREAM": "GALAXY", "SOURCES": ["WORLD"]}
    settings.NATS_COUNTERS = {**settings.NATS_COUNTERS, "galaxy": galaxy}
    assert hits("galaxy") == hits("world") == 0
    hits("eu").incr(1)
    hits("us").incr(2)
    assert becomes(hits("galaxy"), 3)
    assert hits("galaxy").sources() == {"WORLD": 3}


def test_parts_of_one_stream_may_be_summed(on_one_server: OnOneServer) -> None:
    on_one_server(
        SOURCES=[{"STREAM": "EU", "PREFIX": "eu.de"}, {"STREAM": "EU", "PREFIX": "eu.fr"}]
    )
    assert hits("world") == 0
    Counter("de.hits", alias="eu").incr(1)
    Counter("fr.hits", alias="eu").incr(2)
    Counter("it.hits", alias="eu").incr(4)
    assert becomes(hits("world"), 3)
    assert hits("world").sources() == {"EU": 3}


# What becomes of a region --------------------------------------------------------------------


def test_an_added_region_brings_its_earlier_totals(on_one_server: OnOneServer) -> None:
    on_one_server(SOURCES=["EU"])
    hits("us").incr(5)
    for total in (1, 2, 3):  # so that the sum's last message is newer than those of US
        hits("eu").incr()
        assert becomes(hits("world"), total)
    existing = stream_info(Counters("world"))["config"]

    on_one_server(SOURCES=["EU", "US"])
    with pytest.raises(
        CounterMismatch, match=r"the sum of EU \(eu\.> as world\.>\); settings say "
    ):
        hits("world").value()
    world = Counters("world")
    drivers.run(world.session, update(world.stream.stream, existing))

    assert becomes(hits("world"), 8)
    assert hits("world").sources() == {"EU": 3, "US": 5}


@pytest.mark.parametrize(
    "change", [{"PREFIX": "other"}, {"SOURCES": [{"STREAM": "EU", "PREFIX": "x"}, "US"]}], ids=str
)
def test_a_sum_with_other_sources_raises_counter_mismatch(
    on_one_server: OnOneServer, change: dict[str, object]
) -> None:
    assert hits("world") == 0
    on_one_server(**change)
    with pytest.raises(CounterMismatch, match=r"WORLD exists, but is the sum of EU"):
        hits("world").value()


def test_a_reset_in_a_region_shows_at_its_next_increment(on_one_server: OnOneServer) -> None:
    hits("eu").incr(10)
    hits("us").incr(1)
    assert becomes(hits("world"), 11)
    hits("eu").reset()
    hits("us").incr(1)
    assert becomes(hits("world"), 12)
    assert hits("world").sources() == {"EU": 10, "US": 2}
    hits("eu").incr(3)
    assert becomes(hits("world"), 5)


def test_a_recreated_region_counts_again(
    on_one_server: OnOneServer, own_server: NatsServer
) -> None:
    hits("us").incr()
    assert becomes(hits("world"), 1)
    for _ in range(5):
        hits("eu").incr()
    assert becomes(hits("world"), 6)
    api("eu", "STREAM.DELETE.EU")
    assert hits("eu").incr(100) == 100
    # A restarted server looks for its sources at once, instead of after 10 to 20 seconds.
    own_server.restart()
    if api_level(own_server) < 5:  # it does not notice that the stream is a new one
        hits("us").incr()
        assert becomes(hits("world"), 7)
        assert hits("world").sources() == {"EU": 5, "US": 2}
        hits("us").decr()
    else:
        assert becomes(hits("world"), 101)
    for _ in range(5):  # until its sequence passes that of the old stream
        hits("eu").incr()
    assert becomes(hits("world"), 106)


def test_a_deleted_sum_is_recreated_from_its_sources(on_one_server: OnOneServer) -> None:
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


def test_a_purged_sum_includes_a_region_again_at_its_next_increment(
    on_one_server: OnOneServer,
) -> None:
    hits("eu").incr(5)
    hits("us").incr(2)
    assert becomes(hits("world"), 7)
    api("world", "STREAM.PURGE.WORLD")
    assert hits("world") == 0
    hits("eu").incr()
    assert becomes(hits("world"), 6)
    hits("us").incr()
    assert becomes(hits("world"), 9)


def test_lags_report_each_source(on_one_server: OnOneServer) -> None:
    on_one_server(SOURCES=["EU", "US", "NEVER"])
    hits("eu").incr()
    hits("us").incr()
    assert becomes(hits("world"), 2)
    assert eventually(lambda: lags()["EU"].error is lags()["US"].error is None, SOON_S)
    eu = lags()["EU"]
    assert eu.lag == 0
    assert eu.silence is not None
    assert 0 <= eu.silence < 60
    assert eventually(lambda: lags()["NEVER"].error == "stream not found", SOON_S)
    assert lags()["NEVER"].silence is None
    assert list(lags()) == ["EU", "NEVER", "US"]
    assert lags("eu") == {}


# Accounts ------------------------------------------------------------------------------------


@pytest.fixture
def accounts(settings: Any) -> Iterator[NatsServer]:
    """Start a server configured as in the docs: world is the sum of the accounts eu and us."""
    page = (ROOT / "docs/how-to/regions.md").read_text()
    (config,) = re.findall(r"^```text\n(accounts \{\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    with NatsServer(token="", config=config, port=free_port()) as server:
        common = {"LOCATION": server.url, "PASSWORD": "s3cret", "DEADLINE": 30, **PATIENT}
        sources = [
            {"STREAM": "COUNTERS", "API_PREFIX": "eu.API", "DELIVER_PREFIX": "deliver.eu"},
            {"STREAM": "COUNTERS", "API_PREFIX": "us.API", "DELIVER_PREFIX": "deliver.us"},
        ]
        settings.NATS_COUNTERS = {
            "eu": {**common, "USER": "eu"},
            "us": {**common, "USER": "us"},
            "world": {**common, "USER": "world", "SOURCES": sources},
        }
        yield server
        process.close()


@pytest.mark.smoke
def test_a_sum_adds_up_accounts(accounts: NatsServer, settings: Any) -> None:
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

    # Enough bytes that flow control applies: without an answer, the source would stop forever.
    padded_increments("eu", 60)
    assert becomes(world, 862)

    accounts.kill()
    accounts.start()
    hits("us").incr()
    assert becomes(world, 863)
    assert world.sources() == {"COUNTERS@eu": 461, "COUNTERS@us": 402}


def padded_increments(alias: str, times: int) -> None:
    """Publish increments with 40 kB of other headers each."""
    counters = Counters(alias)
    subject = f"{counters.settings.stream.prefix}.hits"
    header = f"NATS/1.0\r\nNats-Incr: 1\r\nPadding: {'x' * 40_000}\r\n\r\n".encode()

    def steps() -> Steps[None]:
        replies = yield [Request(counters.stream.stream.lanes.writes, subject, b"", header)] * times
        assert all("val" in json.loads(reply.payload) for reply in replies)

    drivers.run(counters.session, steps())


# Domains joined by leaf nodes ----------------------------------------------------------------


@pytest.fixture
def leaf_nodes(settings: Any) -> Iterator[LeafNodes]:
    """Start leaf nodes eu and us, and a hub whose alias world is their sum."""
    with LeafNodes("eu", "us") as servers:
        sources = [{"STREAM": "EU", "DOMAIN": "eu"}, {"STREAM": "US", "DOMAIN": "us"}]
        patient = {"DEADLINE": 30, **PATIENT}
        settings.NATS_COUNTERS = {
            "eu": {"LOCATION": servers.leaves["eu"].url, "STREAM": "EU", **patient},
            "us": {"LOCATION": servers.leaves["us"].url, "STREAM": "US", **patient},
            "world": {
                "LOCATION": servers.hub.url,
                "STREAM": "WORLD",
                "SOURCES": sources,
                **patient,
            },
        }
        yield servers
        process.close()


@pytest.mark.smoke
def test_a_sum_adds_up_domains(leaf_nodes: LeafNodes, settings: Any) -> None:
    world = hits("world")
    hits("eu").incr(5)
    hits("us").incr(2)
    assert becomes(world, 7)
    with burst(settings.NATS_COUNTERS, ["eu", "us"], "hits", processes=2, times=200):
        pass
    assert becomes(world, 807)
    assert world.sources() == {"EU": 405, "US": 402}
    assert {name: lag.error for name, lag in lags().items()} == {"EU": None, "US": None}


def test_total_is_served_while_a_region_is_unreachable(
    leaf_nodes: LeafNodes, settings: Any
) -> None:
    world = hits("world")
    hits("eu").incr(5)
    hits("us").incr(2)
    assert becomes(world, 7)
    leaf_nodes.leaves["us"].kill()
    hasty = {**settings.NATS_COUNTERS["us"], "DEADLINE": 1, "REQUEST_TIMEOUT": 1}
    settings.NATS_COUNTERS = {**settings.NATS_COUNTERS, "us": hasty}
    with pytest.raises(CounterUnavailable):
        hits("us").incr()
    hits("eu").incr()
    assert becomes(world, 8)
    assert world.sources() == {"EU": 6, "US": 2}


@pytest.mark.faults
def test_a_sum_is_exact_after_outages_and_restarts(leaf_nodes: LeafNodes, settings: Any) -> None:
    """One region counts while its link is cut; the hub is killed during a burst of the other.

    The sum is complete in the end, which takes most of a minute with servers from 2.14 on.
    """
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
    assert soon(lambda: lags()["EU"].error == "it has not been reached yet")
    leaf_nodes.join("eu")
    hits("us").incr()
    assert becomes(world, 35 + 1004, LATER_S)
    assert world.sources() == {"EU": 35, "US": 1004}
