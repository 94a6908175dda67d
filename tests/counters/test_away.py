"""The server is away or too old, or the stream is not a counter stream."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest

from django_nats.client import drivers, process
from django_nats.client.protocol.steps import Pause, Steps
from django_nats.counters import Counter, Counters, write_behind
from django_nats.devserver import NatsServer
from django_nats.exceptions import CounterMismatch, CounterUnavailable, ServerError, ServerTooOld
from tests.counters.conftest import ASKING, OPERATIONS, Configure, api_level, host_of, stream_info
from tests.servers import eventually, request
from tests.support.operations import Call
from tests.support.patience import hurry, pause_when_idle
from tests.support.ports import free_port

DEADLINE = 0.3


@pytest.fixture
def nowhere() -> dict[str, object]:
    """Return options for an address where no server listens."""
    url = f"nats://127.0.0.1:{free_port()}"
    return {"LOCATION": url, "TOKEN": "", "DEADLINE": DEADLINE, "CONNECT_TIMEOUT": 0.2}


# Away ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "call"), ASKING)
def test_every_request_raises_counter_unavailable_while_the_server_is_away(
    configure: Configure, nowhere: dict[str, object], kind: Any, call: Call
) -> None:
    counters = configure(**nowhere)
    with pytest.raises(CounterUnavailable) as caught:
        call.sync(host_of(kind))
    assert caught.value.may_have_happened is False
    assert counters.settings.stream.stream in str(caught.value)


def assert_is_away(kind: Any, call: Call, twin: bool) -> None:
    """Assert that an operation, or its async twin if it has one, returns its FAIL_OPEN result."""
    try:
        if not twin:
            assert call.sync(host_of(kind)) == call.away
        elif call.twin:
            assert call.in_a_loop(host_of(kind)) == call.away
    finally:
        write_behind.discard()


@pytest.mark.parametrize("twin", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("kind", "call"), OPERATIONS)
def test_every_operation_returns_its_fail_open_result_while_the_server_is_away(
    configure: Configure, nowhere: dict[str, object], kind: Any, call: Call, twin: bool
) -> None:
    configure(**nowhere, FAIL_OPEN=True)
    assert_is_away(kind, call, twin)


@pytest.fixture(scope="module")
def switched_off() -> Iterator[dict[str, object]]:
    """Yield the options for a server that has JetStream switched off."""
    with NatsServer(jetstream=False) as running:
        yield {"LOCATION": running.url, "TOKEN": running.token, "DEADLINE": DEADLINE}
        process.close()


@pytest.mark.parametrize("twin", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("kind", "call"), OPERATIONS)
def test_every_operation_returns_its_fail_open_result_while_jetstream_is_switched_off(
    configure: Configure, switched_off: dict[str, object], kind: Any, call: Call, twin: bool
) -> None:
    configure(**switched_off, FAIL_OPEN=True)
    assert_is_away(kind, call, twin)


def test_an_unknown_total_prints_as_nothing_and_is_not_a_number(
    configure: Configure, nowhere: dict[str, object]
) -> None:
    counters = configure(**nowhere, FAIL_OPEN=True)
    counter = Counter("k")
    assert counters.get_many(iter(["a"])) == {"a": None}
    assert str(counter) == f"{counter:,}" == ""
    assert bool(counter) is False
    assert [counter == 0, counter < 1, counter > -1, counter <= 0, counter >= 0] == [False] * 5
    with pytest.raises(CounterUnavailable, match=r"Counter\('k'\) cannot be read") as caught:
        int(counter)
    assert "value() returns None" in str(caught.value)


def test_a_view_with_many_increments_waits_for_one_deadline(
    configure: Configure, nowhere: dict[str, object]
) -> None:
    configure(**{**nowhere, "DEADLINE": 1})
    for number in range(500):  # one deadline each would exceed the test's limit
        with pytest.raises(CounterUnavailable):
            Counter(f"k.{number}").incr()


def test_an_increment_is_retried_until_the_server_returns(
    configure: Configure, own_server: NatsServer
) -> None:
    counters = configure(on=own_server, STORAGE="file", DEADLINE=120, REQUEST_TIMEOUT=2)
    counter = Counter("k")
    assert counter.incr() == 1
    own_server.kill()
    steps = counters.stream.incr("k", 1)
    starting = _StartDuringPause(own_server, steps)
    assert drivers.run(counters.session, starting.steps()) == 2
    hurry(counters, 60)
    assert counter == 2


class _StartDuringPause:
    """Steps of an operation that start a server at the operation's first pause."""

    def __init__(self, server: NatsServer, steps: Any) -> None:
        self._server = server
        self._steps = steps

    def steps(self) -> Steps[Any]:
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


@pytest.mark.usefixtures("without_pings")
async def test_a_sync_call_does_not_wait_for_a_doubtful_increment_of_its_loop(
    configure: Configure, own_server: NatsServer
) -> None:
    counters = configure(on=own_server, DEADLINE=60, REQUEST_TIMEOUT=60)
    await counters.aincr("k")
    pause_when_idle(own_server, counters)
    hurry(counters, 0.2)
    call = asyncio.ensure_future(counters.aincr("k"))
    assert await asyncio.to_thread(
        eventually, lambda: "k" in counters.stream.increments.doubts._doubts
    )
    own_server.resume()
    hurry(counters, 60)
    counters.incr("k")
    await call
    assert await Counter("k").avalue() == 3


def test_too_many_replicas_raise_server_error_despite_fail_open(configure: Configure) -> None:
    """FAIL_OPEN does not hide the error: it is a mistake in settings, not an outage."""
    counters = configure(REPLICAS=3, FAIL_OPEN=True, DEADLINE=60)
    for _ in range(2):
        with pytest.raises(ServerError, match="cannot be created"):
            counters.incr("k")
    assert counters.stream.increments.retried == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_increments_despite_the_parents_doubts(counters: Counters) -> None:
    counter = Counter("k")
    counter.incr()
    # As if another thread's increment were in doubt during the fork.
    counters.stream.increments.doubts.note(
        "k", counters.stream.publishing.increment("k", 1).request
    )
    child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if counter.incr() == 2 else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    counters.stream.increments.doubts._doubts.clear()
    assert counter.incr() == 3


# Not a counter stream ------------------------------------------------------------------------


def make(server: NatsServer, name: str, **config: object) -> None:
    """Create a stream as another program might."""
    document = {"name": name, "subjects": [f"{name}.>"], **config}
    answer = request(server, f"$JS.API.STREAM.CREATE.{name}", document)
    assert "config" in answer, answer


SUITABLE = {"allow_msg_counter": True, "allow_direct": True, "duplicate_window": 30 * 10**9}


@pytest.mark.parametrize(
    ("existing", "words"),
    [
        ({}, "not a counter stream: it was created without allow_msg_counter"),
        ({"allow_msg_counter": True}, "allow_direct is False, not True"),
        (
            {**SUITABLE, "duplicate_window": 10**9},
            r"duplicate_window is 1 s, not 30 s \(.*DEADLINE",
        ),
        ({**SUITABLE, "subjects": ["elsewhere.>"]}, "holds .*elsewhere.*, not 'theirs.>'"),
        (
            {**SUITABLE, "subjects": None, "sources": [{"name": "X"}]},
            "is the sum of X; settings say",
        ),
    ],
    ids=["plain", "not direct", "window", "subjects", "sum"],
)
def test_an_unsuitable_stream_raises_counter_mismatch(
    configure: Configure, own_server: NatsServer, existing: dict[str, object], words: str
) -> None:
    make(own_server, "theirs", **existing)
    configure(on=own_server, STREAM="theirs")
    for operation in ("incr", "value"):
        with pytest.raises(CounterMismatch, match=words) as caught:
            getattr(Counter("k"), operation)()
        assert "theirs" in str(caught.value)


def test_a_stream_without_sources_raises_counter_mismatch_for_a_sum(
    configure: Configure, own_server: NatsServer
) -> None:
    make(own_server, "theirs", **SUITABLE)
    configure(on=own_server, STREAM="theirs", SOURCES=["EU"])
    with pytest.raises(CounterMismatch, match=r"not a sum; settings say the sum of EU"):
        Counter("k").value()


def test_a_suitable_stream_made_by_hand_is_used(
    configure: Configure, own_server: NatsServer
) -> None:
    make(own_server, "theirs", **SUITABLE, subjects=["theirs.>", "more"], max_msgs_per_subject=5)
    configure(on=own_server, STREAM="theirs")
    assert Counter("k").incr() == 1


def test_a_deleted_stream_is_recreated(counters: Counters) -> None:
    counter = Counter("k")
    counter.incr(5)
    name = counters.settings.stream.stream

    def delete() -> Steps[None]:
        yield counters.stream.stream.api_request(f"$JS.API.STREAM.DELETE.{name}")

    drivers.run(counters.session, delete())
    assert counter.incr() == 1
    drivers.run(counters.session, delete())
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
