"""The server is away, too old, or what is there is no counter stream."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest

from django_nats.client import bridge
from django_nats.client.steps import Pause, Steps
from django_nats.counters import Counter, Counters
from django_nats.devserver import NatsServer
from django_nats.exceptions import CounterMismatch, CounterUnavailable, ServerError, ServerTooOld
from tests.counters.conftest import Configure, api_level, stream_info
from tests.servers import eventually, request
from tests.support.ports import free_port

DEADLINE = 0.3

OPERATIONS = [
    ("value", (), None),
    ("incr", (), None),
    ("decr", (), None),
    ("reset", (), None),
    ("set", (5,), None),
    ("take", (), False),
    ("sources", (), {}),
]
OF_MANY = [
    ("incr", ("k",), None),
    ("get_many", (["a", "b"],), {"a": None, "b": None}),
    ("matching", (">",), {}),
    ("total", (">",), None),
]


@pytest.fixture
def nowhere() -> dict[str, object]:
    """Options for a server that nobody ever started."""
    url = f"nats://127.0.0.1:{free_port()}"
    return {"LOCATION": url, "TOKEN": "", "DEADLINE": DEADLINE, "CONNECT_TIMEOUT": 0.2}


# Away ----------------------------------------------------------------------------------------


def test_errors(configure: Configure, nowhere: dict[str, object]) -> None:
    counters = configure(**nowhere)
    for host, operations in ((Counter("k"), OPERATIONS), (counters, OF_MANY)):
        for operation, arguments, _ in operations:
            with pytest.raises(CounterUnavailable) as caught:
                getattr(host, operation)(*arguments)
            assert caught.value.may_have_happened is False
            assert counters.settings.stream.stream in str(caught.value)


def test_fail_open(configure: Configure, nowhere: dict[str, object]) -> None:
    counters = configure(**nowhere, FAIL_OPEN=True)
    counter = Counter("k")
    for host, operations in ((counter, OPERATIONS), (counters, OF_MANY)):
        for operation, arguments, away in operations:
            assert getattr(host, operation)(*arguments) == away
    assert counters.get_many(iter(["a"])) == {"a": None}
    assert str(counter) == f"{counter:,}" == ""
    assert bool(counter) is False
    assert [counter == 0, counter < 1, counter > -1, counter <= 0, counter >= 0] == [False] * 5
    with pytest.raises(CounterUnavailable, match=r"Counter\('k'\) cannot be read"):
        int(counter)


async def test_fail_open_async(configure: Configure, nowhere: dict[str, object]) -> None:
    counters = configure(**nowhere, FAIL_OPEN=True)
    for host, operations in ((Counter("k"), OPERATIONS), (counters, OF_MANY)):
        for operation, arguments, away in operations:
            assert await getattr(host, f"a{operation}")(*arguments) == away


def test_a_view_with_many_increments_waits_for_one_deadline(
    configure: Configure, nowhere: dict[str, object]
) -> None:
    configure(**{**nowhere, "DEADLINE": 2})
    started = time.monotonic()
    for number in range(20):
        with pytest.raises(CounterUnavailable):
            Counter(f"k.{number}").incr()
    assert time.monotonic() - started < 20  # seconds; one deadline for each would be 40


def test_an_increment_waits_for_the_server(configure: Configure, own_server: NatsServer) -> None:
    counters = configure(on=own_server, STORAGE="file", DEADLINE=20)
    counter = Counter("k")
    assert counter.incr() == 1
    own_server.kill()
    steps = counters.stream.incr("k", 1)
    started = _Started(own_server, steps)
    assert bridge.run(counters.session, started.when_it_pauses()) == 2
    assert counter == 2


class _Started:
    """Starts a server again once an operation waits for it."""

    def __init__(self, server: NatsServer, steps: Any) -> None:
        self._server = server
        self._steps = steps

    def when_it_pauses(self) -> Steps[Any]:
        effect, paused = next(self._steps), False
        try:
            while True:
                if isinstance(effect, Pause) and not paused:
                    paused = True
                    self._server.start()
                try:
                    answer = yield effect
                except Exception as error:
                    effect = self._steps.throw(error)
                else:
                    effect = self._steps.send(answer)
        except StopIteration as end:
            assert paused
            return end.value


async def test_a_sync_call_on_a_loop_does_not_wait_for_the_loops_own(
    configure: Configure, own_server: NatsServer
) -> None:
    counters = configure(on=own_server, REQUEST_TIMEOUT=0.2)
    await counters.aincr("k")
    own_server.pause()
    call = asyncio.ensure_future(counters.aincr("k"))
    assert await asyncio.to_thread(eventually, lambda: "k" in counters.stream._doubts)
    own_server.resume()
    counters.incr("k")
    await call
    assert await Counter("k").avalue() == 3


def test_replicas_that_there_are_no_servers_for(configure: Configure) -> None:
    """Whoever set FAIL_OPEN is told of it too: it is no outage."""
    counters = configure(REPLICAS=3, FAIL_OPEN=True, DEADLINE=60)
    for _ in range(2):
        with pytest.raises(ServerError, match="cannot be made"):
            counters.incr("k")
    assert counters.stream.retried == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_counts_too(counters: Counters) -> None:
    counter = Counter("k")
    counter.incr()
    # As if another thread's increment were in doubt at the moment of the fork.
    counters.stream._note_doubt("k", counters.stream.increment("k", 1).request)
    child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if counter.incr() == 2 else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    counters.stream._doubts.clear()
    assert counter.incr() == 3


# Not a counter stream ------------------------------------------------------------------------


def make(server: NatsServer, name: str, **config: object) -> None:
    """A stream as somebody else might make it."""
    document = {"name": name, "subjects": [f"{name}.>"], **config}
    answer = request(server, f"$JS.API.STREAM.CREATE.{name}", document)
    assert "config" in answer, answer


FIT = {"allow_msg_counter": True, "allow_direct": True, "duplicate_window": 30 * 10**9}


@pytest.mark.parametrize(
    ("existing", "words"),
    [
        ({}, "no counter stream: it was made without allow_msg_counter"),
        ({"allow_msg_counter": True}, "allow_direct is off"),
        ({**FIT, "duplicate_window": 10**9}, "duplicate_window is 1 s, which is less than DEADL"),
        ({**FIT, "subjects": ["elsewhere.>"]}, "holds .*elsewhere.*, not 'theirs.>'"),
        ({**FIT, "subjects": None, "sources": [{"name": "X"}]}, "is the sum of X, and in settings"),
    ],
    ids=["plain", "not direct", "window", "subjects", "sum"],
)
def test_a_stream_that_is_something_else(
    configure: Configure, own_server: NatsServer, existing: dict[str, object], words: str
) -> None:
    make(own_server, "theirs", **existing)
    configure(on=own_server, STREAM="theirs")
    for operation in ("incr", "value"):
        with pytest.raises(CounterMismatch, match=words) as caught:
            getattr(Counter("k"), operation)()
        assert "theirs" in str(caught.value)


def test_a_stream_that_is_no_sum(configure: Configure, own_server: NatsServer) -> None:
    make(own_server, "theirs", **FIT)
    configure(on=own_server, STREAM="theirs", SOURCES=["EU"])
    with pytest.raises(CounterMismatch, match=r"no sum of others, and in settings the sum of EU"):
        Counter("k").value()


def test_a_stream_made_by_hand_that_will_do(configure: Configure, own_server: NatsServer) -> None:
    make(own_server, "theirs", **FIT, subjects=["theirs.>", "more"], max_msgs_per_subject=5)
    configure(on=own_server, STREAM="theirs")
    assert Counter("k").incr() == 1


def test_a_stream_that_was_deleted_is_made_again(counters: Counters) -> None:
    counter = Counter("k")
    counter.incr(5)
    name = counters.settings.stream.stream

    def delete() -> Steps[None]:
        yield counters.stream.api_request(f"$JS.API.STREAM.DELETE.{name}")

    bridge.run(counters.session, delete())
    assert counter.incr() == 1
    bridge.run(counters.session, delete())
    assert counter.value() == 0
    assert stream_info(counters)["config"]["allow_msg_counter"] is True


# Too old -------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_the_server_counts_or_says_that_it_is_too_old(
    configure: Configure, server: NatsServer
) -> None:
    counters = configure()
    if api_level(server) < 2:
        with pytest.raises(ServerTooOld, match=r"counter stream \w+ needs nats-server 2\.12\.1"):
            counters.incr("k")
    else:
        assert counters.incr("k") == 1
