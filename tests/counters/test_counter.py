"""The operations of counters on a real server, sync and async."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from nats.aio.client import Client

from django_nats.client import drivers
from django_nats.client.protocol.steps import Request, Steps
from django_nats.counters import Counter, Counters
from django_nats.devserver import NatsServer
from django_nats.exceptions import InvalidKey, ServerError
from tests.counters.conftest import Configure, stream_info
from tests.servers import eventually

Call = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Iterator[Call]:
    """Yield a function that calls an operation by name, or its async version."""
    if request.param == "sync":
        yield lambda host, name, *args, **kwargs: getattr(host, name)(*args, **kwargs)
        return
    loop = asyncio.new_event_loop()

    def awaited(host: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        return loop.run_until_complete(getattr(host, f"a{name}")(*args, **kwargs))

    yield awaited
    loop.close()


def raw(counters: Counters, subject: str, payload: bytes = b"", header: bytes = b"") -> Any:
    """Publish a message as another client would, and return the server's answer."""

    def steps() -> Steps[Any]:
        yield from counters.stream.stream.opening.ready()
        reply = yield Request(counters.stream.stream.lanes.writes, subject, payload, header)
        return json.loads(reply.payload)

    return drivers.run(counters.session, steps())


# One counter ---------------------------------------------------------------------------------


@pytest.mark.smoke
def test_a_counter_can_be_read_changed_set_and_reset(call: Call, counters: Counters) -> None:
    counter = Counter("page.home")
    assert call(counter, "value") == 0
    assert call(counter, "incr") == 1
    assert call(counter, "incr", 10) == 11
    assert call(counter, "decr") == 10
    assert call(counter, "decr", n=20) == -10
    assert call(counter, "incr", -5) == -15
    assert call(counter, "value") == -15
    assert call(counter, "sources") == {}
    assert call(counter, "set", 7) == 7
    assert call(counter, "reset") is None
    assert call(counter, "value") == 0
    assert call(counter, "incr") == 1


def test_integers_may_have_any_size(call: Call, counters: Counters) -> None:
    counter = Counter("huge")
    assert call(counter, "incr", 10**40) == 10**40
    assert call(counter, "incr") == 10**40 + 1
    assert call(counter, "value") == 10**40 + 1
    assert call(counter, "decr", 2 * 10**40) == 1 - 10**40
    assert call(counters, "get_many", ["huge"]) == {"huge": 1 - 10**40}


def test_a_counter_in_memory_stores_one_message(counters: Counters) -> None:
    for _ in range(5):
        Counter("k").incr()
    assert stream_info(counters)["state"]["messages"] == 1


@pytest.mark.parametrize("delta", [1.0, True, "1", None], ids=repr)
@pytest.mark.parametrize("operation", ["incr", "decr", "set", "take"])
def test_an_amount_that_is_not_an_integer_raises_type_error(
    call: Call, counters: Counters, operation: str, delta: object
) -> None:
    counter = Counter("k")
    with pytest.raises(TypeError, match=repr(type(delta).__name__).strip("'")):
        call(counter, operation, delta)
    assert stream_info(counters)["state"]["messages"] == 0


def test_take_subtracts_only_if_enough_is_left(call: Call, counters: Counters) -> None:
    seats = Counter("seats")
    assert call(seats, "take") is False
    seats.set(3)
    assert call(seats, "take", 2) is True
    assert call(seats, "take", 2) is False
    assert call(seats, "take") is True
    assert call(seats, "take") is False
    assert seats.value() == 0
    assert call(seats, "take", 5, floor=-5) is True
    with pytest.raises(ValueError, match="at least 1"):
        call(seats, "take", 0)


def test_increments_from_threads_return_distinct_totals(counters: Counters) -> None:
    counter = Counter("busy")
    with ThreadPoolExecutor(8) as pool:
        totals = list(pool.map(lambda _: counter.incr(), range(400)))
    assert sorted(totals) == list(range(1, 401))


def test_increments_from_tasks_return_distinct_totals(counters: Counters) -> None:
    async def main() -> list[int]:
        return await asyncio.gather(*(Counter("busy").aincr() for _ in range(400)))

    assert sorted(asyncio.run(main())) == list(range(1, 401))


# Names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        (("page.home",), "page.home"),
        (("clicks", "eu.west", "home"), "clicks.eu=2Ewest.home"),
        (("user:42",), "user=3A42"),
        (("ä *>",), "=C3=A4=20=2A=3E"),
    ],
)
def test_a_name_is_stored_under_its_subject(
    counters: Counters, name: tuple[str, ...], subject: str
) -> None:
    assert Counter(*name).incr() == 1
    prefix = counters.settings.stream.prefix
    header = b"NATS/1.0\r\nNats-Incr: +1\r\n\r\n"
    assert raw(counters, f"{prefix}.{subject}", header=header)["val"] == "2"


@pytest.mark.parametrize(
    "name", [(), ("",), ("a..b",), (".a",), ("a", ""), ("x" * 1025,), ("\ud800",)], ids=repr
)
def test_an_invalid_name_is_refused(counters: Counters, name: tuple[str, ...]) -> None:
    with pytest.raises(InvalidKey):
        Counter(*name)
    for operation in (counters.incr, lambda name: counters.get_many([name])):
        with pytest.raises(ValueError, match=r"Counter name|lone surrogate"):
            operation(name)
    assert stream_info(counters)["state"]["messages"] == 0


@pytest.mark.parametrize("name", [(5,), ("a", None), (b"a",)], ids=repr)
def test_a_name_that_is_not_made_of_strings_raises_type_error(name: Any) -> None:
    with pytest.raises(TypeError, match="made of strings, not of"):
        Counter(*name)


def test_wildcards_in_names_are_ordinary_characters(counters: Counters) -> None:
    counters.incr("a.b")
    counters.incr("*.>")
    assert Counter("*").value() == Counter(">").value() == Counter("a", "*").value() == 0
    Counter("*.>").reset()
    assert Counter("a.b").value() == 1


# Many ----------------------------------------------------------------------------------------


def test_many_counters_can_be_read_listed_and_summed(call: Call, counters: Counters) -> None:
    counters.incr("a", 5)
    assert call(counters, "incr", "b.c") == 1
    assert call(counters, "incr", ("b", "d.e"), 3) == 3
    names = ["a", "b.c", ("b", "d.e"), "none"]
    assert call(counters, "get_many", iter(names)) == {"a": 5, "b.c": 1, ("b", "d.e"): 3, "none": 0}
    assert call(counters, "get_many", []) == {}
    assert call(counters, "matching", "b.*") == {"b.c": 1, ("b", "d.e"): 3}
    assert call(counters, "matching", ">") == {"a": 5, "b.c": 1, ("b", "d.e"): 3}
    assert call(counters, "matching", "z.*") == {}
    assert call(counters, "total", "b.>") == 4
    assert call(counters, "total", ">") == 9
    assert call(counters, "total", "z.>") == 0
    for operation in ("matching", "total"):
        with pytest.raises(ValueError, match="can only be the last"):
            call(counters, operation, "a.>.b")


def test_more_counters_than_one_batch_are_read(counters: Counters) -> None:
    stream_info(counters)
    steps = (counters.stream.incr(f"n.{number}", number) for number in range(1500))
    drivers.run(counters.session, counters.stream.stream.pipeline([next(each) for each in steps]))
    expected = {f"n.{number}": number for number in range(1500)}
    assert counters.matching("n.*") == expected
    assert counters.total("n.>") == sum(range(1500))
    assert counters.get_many(list(expected)) == expected
    assert stream_info(counters)["state"]["consumer_count"] == 0


def test_subjects_without_a_name_are_not_listed_but_summed(counters: Counters) -> None:
    counters.incr("a")
    prefix = counters.settings.stream.prefix
    header = b"NATS/1.0\r\nNats-Incr: +5\r\n\r\n"
    assert raw(counters, f"{prefix}.b=c", header=header)["val"] == "5"
    assert counters.matching(">") == {"a": 1}
    assert counters.total(">") == 6


# Streams -------------------------------------------------------------------------------------


def test_the_stream_is_created_as_settings_say(configure: Configure) -> None:
    counters = configure("x", PREFIX="a.b", MAX_AGE=3600, HISTORY=3, STORAGE="file", DEADLINE=5)
    config = stream_info(counters)["config"]
    assert (
        config.items()
        >= {
            "subjects": ["a.b.>"],
            "description": "Django counters",
            "retention": "limits",
            "storage": "file",
            "num_replicas": 1,
            "max_msgs_per_subject": 3,
            "max_age": 3600 * 10**9,
            "max_bytes": -1,
            "max_msgs": -1,
            "max_msg_size": -1,
            "discard": "old",
            "duplicate_window": 15 * 10**9,
            "allow_direct": True,
            "allow_msg_counter": True,
            "deny_delete": True,
            "deny_purge": False,
            "allow_rollup_hdrs": False,
            "allow_msg_ttl": False,
        }.items()
    )
    assert "subject_delete_marker_ttl" not in config


def test_the_server_refuses_messages_without_an_increment(counters: Counters) -> None:
    counters.incr("k")
    prefix = counters.settings.stream.prefix
    assert raw(counters, f"{prefix}.k", b"7")["error"]["err_code"] == 10169
    assert counters.incr("k") == 2


def test_aliases_count_separately(configure: Configure) -> None:
    one, other = configure("default"), configure("other")
    one.incr("k", 5)
    assert one["other"].get_many(["k"]) == {"k": 0}
    assert Counter("k", alias="other").incr() == 1
    assert other.total(">") == 1
    assert repr(other) == "<Counters other>"


def test_a_second_stream_with_the_same_prefix_is_refused(configure: Configure) -> None:
    configure("one", PREFIX="same").incr("k")
    with pytest.raises(ServerError, match=r"counter stream test_\w+ cannot be created.*overlap"):
        configure("two", PREFIX="same").incr("k")


def test_increments_of_another_client_are_counted(counters: Counters, server: NatsServer) -> None:
    counters.incr("k")

    async def add() -> str:
        client = Client()
        await client.connect(server.url, token=server.token, connect_timeout=60)
        subject = f"{counters.settings.stream.prefix}.k"
        reply = await client.request(subject, headers={"Nats-Incr": "+41"}, timeout=60)
        await client.close()
        return reply.data.decode()

    assert '"val":"42"' in asyncio.run(add())
    assert Counter("k").value() == 42


def test_a_stream_with_sources_sums_them(configure: Configure) -> None:
    eu, us = configure("eu", PREFIX="region.eu"), configure("us")
    eu.incr("clicks.home", 5)
    us.incr("clicks.home", 1)
    sources = [
        {"STREAM": eu.settings.stream.stream, "PREFIX": "region.eu"},
        us.settings.stream.stream,
    ]
    everywhere = configure("all", SOURCES=sources)
    clicks = Counter("clicks.home", alias="all")
    assert eventually(lambda: clicks == 6)
    us.incr("clicks.home")
    us.incr("clicks.about")
    assert eventually(lambda: everywhere.total("clicks.*") == 8)
    assert clicks.sources() == {
        eu.settings.stream.stream: 5,
        us.settings.stream.stream: 2,
    }
    assert "subjects" not in stream_info(everywhere)["config"]
