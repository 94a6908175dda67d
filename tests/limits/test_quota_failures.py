"""What a use of a quota costs, and what stays counted if it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from django_nats.client.protocol.steps import Pause, Request, Steps
from django_nats.devserver import NatsServer
from django_nats.exceptions import CounterMismatch, CounterUnavailable, NotSent, OutcomeUnknown
from django_nats.limits import Quota, Usage
from tests.counters.conftest import Configure
from tests.servers import eventually, request
from tests.support.answers import Clock
from tests.support.driven import Driven
from tests.support.ports import free_port

pytestmark = pytest.mark.usefixtures("alias", "time")


def exports(limit: Any = 10) -> Quota:
    return Quota("exports", limit=limit, per="month")


def driven(quota: Quota, steps: Steps[Any]) -> Driven:
    quota.reset_at()  # the stream is open
    return Driven(quota.session, steps)


def numbers(usage: Usage) -> tuple[bool, int, int | None, int | None]:
    return usage.allowed, usage.used, usage.limit, usage.remaining


# Round trips ---------------------------------------------------------------------------------


def test_an_allowed_use_is_one_round_trip_and_a_refused_one_two() -> None:
    quota = exports(1)
    first = driven(quota, quota._use("acme"))
    assert first.end()
    second = driven(quota, quota._use("acme"))
    assert not second.end()
    assert (first.requests, second.requests) == (1, 2)


def test_a_flood_of_refused_uses_writes_nothing(server: NatsServer) -> None:
    quota = exports(5)
    quota.use("acme", 5)
    quota.use("acme")
    before = last_sequence(server, quota)
    for _ in range(3):
        operation = driven(quota, quota._use("acme"))
        assert numbers(operation.end()) == (False, 5, 5, 0)
        assert operation.requests == 1
    assert numbers(quota.use("other", 6)) == (False, 0, 5, 5)  # more than could ever be
    assert last_sequence(server, quota) == before


def last_sequence(server: NatsServer, quota: Quota) -> int:
    info: Any = request(server, f"$JS.API.STREAM.INFO.{quota._stream.config.stream}")
    return int(info["state"]["last_seq"])


def test_after_a_refusal_a_smaller_use_that_has_room_is_allowed() -> None:
    quota = exports(5)
    quota.use("acme", 2)
    assert not quota.use("acme", 4)
    first, second = (driven(quota, quota._use("acme")) for _ in range(2))
    assert first.end()
    assert second.end()
    assert first.requests == 2  # it reads whether there is room
    third = driven(quota, quota._use("acme"))
    assert third.end()
    assert third.requests == 1


# Lost answers and ended processes --------------------------------------------------------------


@pytest.mark.parametrize(("n", "expected"), [(4, (True, 7, 10, 3)), (8, (False, 3, 10, 7))])
def test_a_use_whose_answer_is_lost_is_counted_once(n: int, expected: object) -> None:
    quota = exports()
    quota.use("acme", 3)
    operation = driven(quota, quota._use("acme", n))
    operation.lose_answer()
    assert numbers(operation.end()) == expected
    assert quota.usage("acme").used == expected[1]  # type: ignore[index]


def test_a_use_after_a_refusal_goes_on_if_what_is_used_cannot_be_read() -> None:
    """During an election, reads fail at once, while increments wait for the leader."""
    for n, allowed in ((2, True), (4, False)):
        quota, tenant = exports(5), f"acme {n}"
        quota.use(tenant, 3)
        assert not quota.use(tenant, 3)
        steps = quota._use(tenant, n)
        operation = driven(quota, steps)
        operation._advance(steps.throw, NotSent())
        assert operation.end().allowed is allowed
        assert quota.usage(tenant).used == 3 + 2 * allowed


@pytest.mark.parametrize("applied", [True, False])
def test_what_is_given_back_is_not_sent_again_to_a_lone_server(applied: bool) -> None:
    quota = exports()
    quota.use("acme", 3)
    steps = quota._use("acme", 8)
    operation = driven(quota, steps)
    operation.go_on()
    if applied:
        operation.send()
    with pytest.raises(CounterUnavailable, match="may stay counted") as caught:
        steps.throw(OutcomeUnknown())
    assert caught.value.may_have_happened
    assert quota.usage("acme").used == (3 if applied else 11)


@pytest.mark.parametrize("sent", range(3))
def test_a_process_that_dies_in_a_refused_use_leaves_too_much_counted_and_never_too_little(
    sent: int,
) -> None:
    quota = exports()
    quota.use("acme", 8)
    operation = driven(quota, quota._use("acme", 5))
    for _ in range(sent):
        operation.go_on()
    operation.die()
    assert quota.usage("acme").used == (13 if sent == 1 else 8)
    assert quota.remaining("acme") == (0 if sent == 1 else 2)


@pytest.mark.parametrize(
    ("n", "sent", "failure"),
    [(1, 0, OutcomeUnknown()), (4, 1, NotSent())],
)
def test_a_use_that_may_stay_counted_says_so(
    monkeypatch: pytest.MonkeyPatch, n: int, sent: int, failure: Exception
) -> None:
    clock = Clock()
    monkeypatch.setattr("django_nats.client.counters.increments.monotonic", clock)
    quota = exports(5)
    quota.use("acme", 3)
    steps = quota._use("acme", n)
    effect = next(steps)
    for _ in range(sent):
        effect = steps.send(Driven(quota.session, only(effect)).end())
    assert isinstance(effect, Request)
    assert isinstance(steps.throw(failure), Pause)
    clock.now += quota._stream.config.deadline
    with pytest.raises(CounterUnavailable) as caught:
        steps.send(None)
    assert caught.value.may_have_happened


def only(effect: object) -> Steps[Any]:
    return (yield effect)


# The server is away --------------------------------------------------------------------------

CALLS: dict[str, Callable[[Quota], object]] = {
    "use": lambda quota: quota.use("acme"),
    "ause": lambda quota: asyncio.run(quota.ause("acme")),
    "usage": lambda quota: quota.usage("acme"),
    "remaining": lambda quota: quota.remaining("acme"),
    "reset": lambda quota: quota.reset("acme"),
    "reset_at": lambda quota: quota.reset_at(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_call_raises_while_the_server_is_away_whatever_fail_open_says(
    configure: Configure, call: Callable[[Quota], object]
) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    configure(LOCATION=url, TOKEN="", CONNECT_TIMEOUT=0.2, DEADLINE=0.3, FAIL_OPEN=True)
    with pytest.raises(CounterUnavailable) as caught:
        call(exports())
    assert not caught.value.may_have_happened


def test_a_use_waits_for_a_server_that_restarts(
    configure: Configure, own_server: NatsServer
) -> None:
    configure(on=own_server, DEADLINE=60.0)
    quota = exports(3)
    id = quota.use("acme", 2).id
    own_server.kill()
    assert eventually(lambda: quota.session.connection is None)
    operation = driven(quota, quota._use("acme"))
    with pytest.raises(NotSent):
        operation.send()
    own_server.start()
    assert numbers(operation.end()) == (True, 3, 3, 0)
    assert not quota.use("acme")
    assert quota.refund(id)
    assert quota.usage("acme").used == 1


def test_a_call_that_was_not_sent_says_so() -> None:
    quota = exports()
    quota.reset_at()
    steps = quota._usage("acme")
    next(steps)
    with pytest.raises(CounterUnavailable) as caught:
        steps.throw(NotSent())
    assert not caught.value.may_have_happened


def test_a_stream_that_is_not_one_of_counters_is_refused(server: NatsServer) -> None:
    quota = exports()
    config = quota._stream.config
    document = {"name": config.stream, "subjects": [config.subject_filter]}
    request(server, f"$JS.API.STREAM.CREATE.{config.stream}", document)
    with pytest.raises(CounterMismatch, match=config.stream):
        quota.use("acme")
