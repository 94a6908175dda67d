"""Limits while the server is away: the wait is bounded, and FAIL_OPEN decides."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import override_settings

from django_nats.client import process
from django_nats.client.protocol.steps import Steps, Within
from django_nats.client.protocol.wire import Reply
from django_nats.conf.limit_streams import limit_stream
from django_nats.counters import Counters
from django_nats.devserver import NatsServer
from django_nats.exceptions import CounterMismatch, NotSent, OutcomeUnknown, Unavailable
from django_nats.limits import Decision, Limit
from tests.counters.conftest import Configure
from tests.limits.conftest import Time
from tests.servers import eventually, request
from tests.support.answers import Clock
from tests.support.black_hole import black_hole
from tests.support.ports import free_port

Hit = Callable[[Limit], Decision]


@pytest.fixture(params=["hit", "ahit", "peek", "apeek"])
def ask(request: pytest.FixtureRequest) -> Hit:
    """Return each way to ask a limit."""

    def asking(limit: Limit) -> Decision:
        result: Any = getattr(limit, request.param)("a")
        return asyncio.run(result) if request.param.startswith("a") else result  # type: ignore[no-any-return]

    return asking


@pytest.fixture
def nowhere(configure: Configure) -> Callable[..., Counters]:
    """Return a function that sets up an alias at an address where no server listens."""
    url = f"nats://127.0.0.1:{free_port()}"

    def set_up(**options: Any) -> Counters:
        return configure(LOCATION=url, TOKEN="", CONNECT_TIMEOUT=0.2, **options)

    return set_up


@pytest.mark.parametrize("fail_open", [False, True])
def test_the_limits_own_fail_open_decides_while_the_server_is_away(
    nowhere: Callable[..., Counters], ask: Hit, fail_open: bool
) -> None:
    nowhere(FAIL_OPEN=not fail_open)
    decision = ask(Limit("api", "5/m", fail_open=fail_open))
    assert decision.allowed is fail_open
    assert isinstance(decision.error, Unavailable)
    assert (decision.limit, decision.remaining) == (None, None)


@pytest.mark.parametrize("fail_open", [False, True])
def test_the_option_of_limits_is_the_default_and_not_that_of_counters(
    nowhere: Callable[..., Counters], ask: Hit, fail_open: bool
) -> None:
    nowhere(FAIL_OPEN=True)
    assert not ask(Limit("api", "5/m")).allowed
    with override_settings(NATS_LIMITS={"FAIL_OPEN": fail_open}):
        assert ask(Limit("api", "5/m")).allowed is fail_open


def test_a_dry_run_lets_through_while_the_server_is_away(
    nowhere: Callable[..., Counters], caplog: pytest.LogCaptureFixture
) -> None:
    nowhere()
    assert Limit("api", "5/m", fail_open=False, dry_run=True).hit("a").allowed
    assert "Limit('api'): hits are let through, and not counted" in caplog.text


@pytest.mark.parametrize("fail_open", [False, True])
def test_a_reset_raises_while_the_server_is_away(
    nowhere: Callable[..., Counters], fail_open: bool
) -> None:
    nowhere(FAIL_OPEN=fail_open)
    with pytest.raises(Unavailable):
        Limit("api", "5/m").reset("a")


def test_an_outage_is_one_line_in_the_log_and_so_is_its_end(
    configure: Configure, own_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    configure(on=own_server)
    limit = Limit("api", "5/m", fail_open=True)
    assert limit.hit("a").error is None
    own_server.kill()
    assert eventually(lambda: limit.hit("a").error is not None)
    for _ in range(5):
        limit.hit("a")
    own_server.start()
    assert eventually(lambda: limit.hit("a").error is None)
    lines = [each.getMessage() for each in caplog.records if "Limit('api')" in each.getMessage()]
    away, again = lines
    assert away.startswith("Limit('api'): hits are let through, and not counted: ")
    assert again == "Limit('api'): hits are counted again"
    assert all(each.levelno == logging.WARNING for each in caplog.records)


def test_an_outage_is_logged_again_after_settings_have_changed(
    nowhere: Callable[..., Counters], caplog: pytest.LogCaptureFixture
) -> None:
    limit = Limit("api", "5/m")
    for _ in range(2):
        nowhere()
        for _ in range(2):
            assert not limit.hit("a")
    assert sum("hits are refused" in each.getMessage() for each in caplog.records) == 2


def test_an_outage_that_comes_and_goes_is_logged_once_in_10_seconds(
    configure: Configure, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("django_nats.limits.outage_log.monotonic", clock)
    configure()
    limit = Limit("api", "900/m", fail_open=True)
    limit.hit("a")

    def fail() -> Decision:
        steps = limit._hit("a", 1, None)
        next(steps)
        with pytest.raises(StopIteration) as end:
            steps.throw(NotSent("away"))
        return end.value.value  # type: ignore[no-any-return]

    for _ in range(20):
        assert fail().error
        assert limit.hit("a").error is None
    assert len(caplog.messages) == 2
    fail()
    clock.now += 10.1
    for _ in range(20):
        fail()
    assert len(caplog.messages) == 3
    limit.hit("a")
    assert [each.split(":")[1] for each in caplog.messages] == [
        *(" hits are let through, and not counted", " hits are counted again") * 2
    ]


def test_a_first_hit_waits_no_longer_than_its_timeout_for_a_connection(
    configure: Configure, ask: Hit
) -> None:
    # With CONNECT_TIMEOUT alone, this would take longer than the test may.
    with black_hole("127.0.0.1") as port:
        configure(LOCATION=f"nats://127.0.0.1:{port}", TOKEN="", CONNECT_TIMEOUT=3599.0)
        decision = ask(Limit("api", "5/m", timeout=0.2, fail_open=True))
        process.close()
    assert decision.allowed
    assert isinstance(decision.error, Unavailable)


@pytest.mark.parametrize("method", ["_hit", "_peek"])
def test_a_first_call_has_one_timeout_for_all_its_round_trips(
    configure: Configure, method: str
) -> None:
    configure()
    limit = Limit("api", "5/m", "6/h")
    arguments = ("a", 1, None) if method == "_hit" else ("a", None)
    asked: list[Any] = []

    def noting(steps: Steps[Decision]) -> Steps[None]:
        answer = None
        with suppress(StopIteration):
            while True:
                asked.append(steps.send(answer))
                answer = yield asked[-1]

    limit._run(noting(getattr(limit, method)(*arguments)))
    assert len(asked) > 4
    assert len({each.deadline for each in asked}) == 1


def test_a_hit_waits_no_longer_than_its_timeout_for_an_answer(
    configure: Configure, own_server: NatsServer, without_pings: None
) -> None:
    # A counter of the same alias would wait for its REQUEST_TIMEOUT.
    configure(on=own_server, REQUEST_TIMEOUT=3000.0, DEADLINE=3000.0)
    limit = Limit("api", "5/m", timeout=1.0)
    assert eventually(lambda: limit.hit("warm-up").error is None)
    own_server.pause()
    try:
        decision = limit.hit("a")
    finally:
        own_server.resume()
    assert not decision.allowed
    assert isinstance(decision.error, Unavailable)


def test_a_short_timeout_fails_no_other_calls_of_the_process(
    configure: Configure,
    own_server: NatsServer,
    without_pings: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("django_nats.client.transport.session._SILENCE_S", 3600.0)
    counters = configure(on=own_server, REQUEST_TIMEOUT=3000.0, DEADLINE=3000.0)
    counters.incr("views")
    limit = Limit("api", "5/m", timeout=0.5)
    assert eventually(lambda: limit.hit("a").error is None)
    own_server.pause()
    try:
        assert limit.hit("b").error is not None
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(counters.get_many, ["views"])
            own_server.resume()
            assert waiting.result() == {"views": 1}
    finally:
        own_server.resume()


def test_a_stream_that_forgets_too_early_is_refused(
    configure: Configure, server: NatsServer, ask: Hit
) -> None:
    counters = configure()
    config = limit_stream(counters.settings, 60)
    document = {**config.stream_config(), "max_age": 60 * 10**9}
    assert "config" in request(server, f"$JS.API.STREAM.CREATE.{config.stream}", document)
    with pytest.raises(CounterMismatch, match="max_age is 1 min, not 2 min"):
        ask(Limit("api", "5/m", fail_open=True))


def test_a_hit_that_one_stream_refuses_is_given_back_to_the_others(
    configure: Configure, server: NatsServer, time: Time
) -> None:
    counters = configure()
    limit = Limit("api", "5/m", "9/h", fail_open=False)
    time.begin_window("a", 60)
    limit.hit("a")
    broken = limit_stream(counters.settings, 3600)
    request(server, f"$JS.API.STREAM.DELETE.{broken.stream}")
    other = {"name": broken.stream, "subjects": [broken.subject_filter]}
    assert "config" in request(server, f"$JS.API.STREAM.CREATE.{broken.stream}", other)
    with pytest.raises(Exception, match=broken.stream):
        limit.hit("a")
    assert eventually(lambda: Limit("api", "5/m").peek("a").remaining == 4)


def test_a_hit_that_is_refused_as_one_stream_does_not_answer_is_given_back_to_the_others(
    configure: Configure, time: Time
) -> None:
    configure()
    limit = Limit("api", "5/m", "9/h", algorithm="fixed", fail_open=False)
    time.begin_window("a", 60)
    limit.hit("a")
    steps = limit._hit("a", 1, None)
    minute, _ = next(steps)
    stream = limit._places(limit._fixed_rates or ())[1][0].stream.config.stream
    counted = Reply(b"", b'{"stream":"%b","seq":2,"val":"2"}' % stream.encode())
    assert minute.subject.startswith(b"test_")
    with pytest.raises(StopIteration) as end:
        steps.send([counted, OutcomeUnknown("no answer")])
    assert not end.value.value.allowed
    # The server has not counted that hit, as the test has answered for it.
    assert eventually(lambda: Limit("api", "5/m", algorithm="fixed").peek("a").remaining == 5)


def test_what_is_read_for_a_peek_is_waited_for_until_its_timeout(configure: Configure) -> None:
    configure()
    limit = Limit("api", "5/m")
    limit.peek("a")
    steps = limit._peek("a", None)
    assert type(next(steps)) is Within
    steps.close()


def test_a_rate_that_refuses_does_so_although_another_one_does_not_answer(
    configure: Configure, time: Time
) -> None:
    configure()
    limit = Limit("api", "5/m", "9/h", algorithm="fixed", fail_open=True)
    time.begin_window("a", 60)
    limit.hit("a")
    steps = limit._hit("a", 1, None)
    next(steps)
    stream = limit._places(limit._fixed_rates or ())[1][0].stream.config.stream
    counted = Reply(b"", b'{"stream":"%b","seq":9,"val":"6"}' % stream.encode())
    with pytest.raises(StopIteration) as end:
        steps.send([counted, OutcomeUnknown("no answer")])
    decision = end.value.value
    assert not decision.allowed
    assert decision.limit == 5
    assert decision.error is None


def test_a_hit_waits_for_an_embedded_server_that_it_may_have_to_start(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = configure()
    limit = Limit("api", "5/m", timeout=0.2)
    assert limit._places([])[0] == 0.2
    connection = replace(counters.settings.connection, embedded="/srv/nats")
    context = SimpleNamespace(settings=replace(counters.settings, connection=connection))
    monkeypatch.setattr("django_nats.limits.limit.context_of", lambda alias: context)
    assert limit._places([])[0] == 10.0
