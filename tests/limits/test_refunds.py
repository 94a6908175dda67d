"""Refunds: each use once, in every order of requests and with every failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from django_nats.client.protocol.steps import Pause, Steps
from django_nats.client.streams.config import NANOSECONDS
from django_nats.devserver import NatsServer
from django_nats.exceptions import CounterUnavailable, NotSent, OutcomeUnknown
from django_nats.limits import Quota
from tests.counters.conftest import Configure
from tests.limits.conftest import Time
from tests.servers import eventually, request
from tests.support.answers import Clock
from tests.support.driven import Driven, orders

pytestmark = pytest.mark.usefixtures("alias", "time")


def exports(**options: object) -> Quota:
    return Quota("exports", limit=10, per="month", **options)  # type: ignore[arg-type]


@pytest.fixture(params=["sync", "async"])
def refund(request: pytest.FixtureRequest) -> Callable[[Quota, str], bool]:
    if request.param == "sync":
        return lambda quota, id: quota.refund(id)
    return lambda quota, id: asyncio.run(quota.arefund(id))


def driven(quota: Quota, steps: Steps[object]) -> Driven:
    return Driven(quota.session, steps)


# What users see ------------------------------------------------------------------------------


def test_a_refund_gives_back_what_was_used_once(refund: Callable[[Quota, str], bool]) -> None:
    quota = exports()
    quota.use("acme", 2)
    used = quota.use("acme", 5)
    assert refund(quota, used.id)
    assert quota.usage("acme").used == 2
    assert not refund(quota, used.id)
    assert quota.usage("acme").used == 2


def test_each_use_is_refunded_by_its_own_id() -> None:
    quota = exports()
    first, second = quota.use("acme", 3), quota.use("acme", 3)
    assert first.id != second.id
    assert quota.refund(first.id)
    assert quota.refund(second.id)
    assert quota.usage("acme").used == 0


def test_another_quota_object_of_the_same_name_refunds_as_well() -> None:
    id = exports().use("acme").id
    assert exports().refund(id)
    assert not exports().refund(id)


def test_a_use_without_a_limit_can_be_refunded() -> None:
    quota = Quota("calls", limit=None, per="day")
    id = quota.use("acme", 4).id
    assert quota.refund(id)
    assert quota.usage("acme").used == 0


def test_a_tenant_that_had_used_all_can_use_what_was_refunded() -> None:
    quota = exports()
    id = quota.use("acme", 10).id
    assert not quota.use("acme")
    assert quota.refund(id)
    assert quota.use("acme", 10)


def test_after_the_period_nothing_is_refunded(time: Time) -> None:
    quota = Quota("exports", limit=10, per="hour")
    id = quota.use("acme", 4).id
    time.pass_by(3600)
    quota.use("acme", 5)
    assert not quota.refund(id)
    assert quota.usage("acme").used == 5
    time.pass_by(-3600)
    assert quota.usage("acme").used == 4
    assert quota.refund(id)


def test_after_a_reset_no_earlier_use_is_refunded() -> None:
    quota = exports()
    earlier = [quota.use("acme", 3).id for _ in range(2)]
    assert quota.refund(earlier[0])
    quota.reset("acme")
    later = quota.use("acme", 5).id
    assert [quota.refund(id) for id in earlier] == [False, False]
    assert quota.usage("acme").used == 5
    assert quota.refund(later)
    assert quota.usage("acme").used == 0


# In every order ------------------------------------------------------------------------------


def test_refunds_of_one_use_at_the_same_time_give_back_once() -> None:
    quota, tenants = exports(), iter(range(1000))
    tenant = ""

    def start() -> list[Driven]:
        nonlocal tenant
        tenant = f"acme {next(tenants)}"
        quota.use(tenant, 2)
        id = quota.use(tenant, 3).id
        return [driven(quota, quota._refund(id)) for _ in range(2)]

    count = 0
    for order, refunds in orders(start):
        count += 1
        assert sorted(each.result for each in refunds) == [False, True], order
        assert quota.usage(tenant).used == 2, order
    assert count > 4


def test_uses_and_refunds_at_the_same_time_never_exceed_the_limit() -> None:
    quota, tenants = exports(), iter(range(1000))
    tenant = ""

    def start() -> list[Driven]:
        nonlocal tenant
        tenant = f"acme {next(tenants)}"
        id = quota.use(tenant, 6).id
        uses = [driven(quota, quota._use(tenant, 4)) for _ in range(2)]
        return [driven(quota, quota._refund(id)), *uses]

    for order, (refund, *uses) in orders(start):
        allowed = sum(bool(each.result) for each in uses)
        assert refund.result, order
        assert allowed >= 1, order
        assert quota.usage(tenant).used == 4 * allowed <= 10, order


# With every failure --------------------------------------------------------------------------


@pytest.mark.parametrize("lost", range(2))
def test_a_lost_answer_neither_loses_nor_repeats_a_refund(lost: int) -> None:
    quota = exports()
    quota.use("acme", 2)
    id = quota.use("acme", 3).id
    operation = driven(quota, quota._refund(id))
    for _ in range(lost):
        operation.go_on()
    operation.lose_answer()
    assert operation.end() is True
    assert quota.usage("acme").used == 2
    assert not quota.refund(id)
    assert quota.usage("acme").used == 2


@pytest.mark.parametrize("sent", range(4))
def test_a_process_that_dies_in_a_refund_leaves_too_much_counted_and_never_too_little(
    sent: int,
) -> None:
    quota = exports()
    quota.use("acme", 2)
    id = quota.use("acme", 3).id
    operation = driven(quota, quota._refund(id))
    for _ in range(sent):
        operation.go_on()
    operation.die()
    begun, finished = sent >= 2, sent == 3
    assert quota.refund(id) is not begun
    assert quota.usage("acme").used == (5 if begun and not finished else 2)


def test_a_refund_that_begins_when_others_are_long_forgotten_gives_nothing_back(
    configure: Configure, server: NatsServer
) -> None:
    configure(DEADLINE=2.0)
    quota = exports()
    id = quota.use("acme", 3).id
    late = driven(quota, quota._refund(id))
    late.go_on()  # it knows of no reset, and is about to write
    assert quota.refund(id)
    wait_until_ids_are_forgotten(quota, server, 2)
    assert late.end() is False
    assert not quota.refund(id)
    assert quota.usage("acme").used == 0


def wait_until_ids_are_forgotten(quota: Quota, server: NatsServer, seconds: int) -> None:
    """Wait until the server has forgotten the ids of all earlier messages of the quota's stream.

    ``seconds`` are those for which it shall remember them, at least DEADLINE.
    """
    config = quota._stream.config
    document = {**config.stream_config(), "duplicate_window": seconds * NANOSECONDS}
    assert "config" in request(server, f"$JS.API.STREAM.UPDATE.{config.stream}", document)
    increments = quota._stream.increments
    probe = increments.request("probe", 1, "an id of its own")

    def publish() -> Steps[bool]:
        return increments.counted((yield probe)) is not None

    assert driven(quota, publish()).end()
    assert eventually(lambda: driven(quota, publish()).end())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock by which increments, and questions before them, wait."""
    made = Clock()
    monkeypatch.setattr("django_nats.client.counters.increments.monotonic", made)
    return made


def test_a_refund_that_could_not_begin_can_be_repeated(clock: Clock) -> None:
    quota = exports()
    id = quota.use("acme", 3).id
    steps = quota._refund(id)
    next(steps)
    assert isinstance(steps.throw(NotSent()), Pause)  # there may be a leader in a moment
    clock.now += quota._stream.config.deadline
    steps.send(None)
    with pytest.raises(CounterUnavailable) as caught:
        steps.throw(NotSent())
    assert not caught.value.may_have_happened
    assert quota.refund(id)
    assert quota.usage("acme").used == 0


@pytest.mark.parametrize("applied", [True, False])
def test_a_refund_whose_last_answer_is_lost_is_not_sent_again_to_a_lone_server(
    applied: bool,
) -> None:
    quota = exports()
    quota.use("acme", 2)
    id = quota.use("acme", 3).id
    steps = quota._refund(id)
    operation = driven(quota, steps)
    operation.go_on()
    operation.go_on()
    if applied:
        operation.send()
    with pytest.raises(CounterUnavailable, match="3 may stay used") as caught:
        steps.throw(OutcomeUnknown())
    assert caught.value.may_have_happened
    for _ in range(2):
        assert quota.usage("acme").used == (2 if applied else 5)
        assert not quota.refund(id)


def test_a_refund_that_could_not_be_finished_says_that_the_use_may_stay_counted(
    clock: Clock,
) -> None:
    quota = exports()
    id = quota.use("acme", 3).id
    steps = quota._refund(id)
    operation = driven(quota, steps)
    operation.go_on()
    operation.go_on()
    assert isinstance(steps.throw(NotSent()), Pause)
    clock.now += quota._stream.config.deadline
    with pytest.raises(CounterUnavailable, match="3 may stay used") as caught:
        steps.send(None)
    assert caught.value.may_have_happened
    assert not quota.refund(id)
    assert quota.usage("acme").used == 3
