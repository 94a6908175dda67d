"""Limits on a real server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from django.test import override_settings

from django_nats.client import drivers
from django_nats.client.counters import hits
from django_nats.client.protocol.steps import Steps
from django_nats.counters import Counters
from django_nats.limits import Decision, Limit
from django_nats.limits.algorithms import ALGORITHMS
from tests.counters.conftest import Configure
from tests.limits.conftest import Time
from tests.servers import eventually

pytestmark = pytest.mark.usefixtures("alias")

Hit = Callable[..., Decision]


def _sync(limit: Limit, *arguments: Any, **options: Any) -> Decision:
    return limit.hit(*arguments, **options)


def _async(limit: Limit, *arguments: Any, **options: Any) -> Decision:
    return asyncio.run(limit.ahit(*arguments, **options))


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def hit(request: pytest.FixtureRequest) -> Hit:
    return request.param  # type: ignore[no-any-return]


def leaves(limit: Limit, key: str, remaining: int) -> bool:
    """Return True once so much is left: the server takes what is given back a moment later."""
    return eventually(lambda: limit.peek(key).remaining == remaining)


@pytest.mark.smoke
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_as_many_hits_as_the_rate_says_are_let_through(
    time: Time, hit: Hit, algorithm: str
) -> None:
    limit = Limit("api", "3/m", algorithm=algorithm)
    time.begin_window("a", 60)
    assert [hit(limit, "a").allowed for _ in range(5)] == [True, True, True, False, False]
    assert hit(limit, "b").allowed


def test_a_decision_says_what_is_left_and_how_long_to_wait(time: Time, hit: Hit) -> None:
    limit = Limit("api", "2/m", algorithm="fixed")
    time.begin_window("a", 60)
    time.pass_by(20)
    first, second, third = (hit(limit, "a") for _ in range(3))
    assert (first.limit, first.remaining, first.retry_after) == (2, 1, 0)
    assert (second.limit, second.remaining, second.retry_after) == (2, 0, 0)
    assert not third
    assert (third.limit, third.remaining) == (2, 0)
    assert third.retry_after == third.reset_after == pytest.approx(40, abs=0.1)
    assert third.error is None
    assert not third.dry_run


def test_a_fixed_window_forgets_at_once(time: Time, hit: Hit) -> None:
    limit = Limit("api", "2/m", algorithm="fixed")
    time.begin_window("a", 60)
    hit(limit, "a", 2)
    assert not hit(limit, "a")
    time.pass_by(60)
    assert hit(limit, "a", 2)


def test_a_sliding_window_forgets_little_by_little(time: Time, hit: Hit) -> None:
    limit = Limit("api", "10/m")
    time.begin_window("a", 60)
    assert hit(limit, "a", 10)
    time.pass_by(60)
    assert not hit(limit, "a")
    time.pass_by(29.9)
    assert leaves(limit, "a", 4)
    time.pass_by(1)
    assert hit(limit, "a", 5)
    assert not hit(limit, "a")


def test_a_refused_cost_is_given_back(time: Time, hit: Hit) -> None:
    limit = Limit("api", "10/m", "20/h")
    time.begin_window("a", 60)
    assert hit(limit, "a", 8)
    refused = hit(limit, "a", 5)
    assert (refused.allowed, refused.limit, refused.remaining) == (False, 10, 2)
    assert leaves(limit, "a", 2)
    assert hit(limit, "a", 2)
    time.pass_by(120)
    # Of both rates: the hour has counted 10, not 15.
    assert hit(limit, "a", 10)


def test_the_rate_that_refuses_for_the_longest_time_decides(time: Time, hit: Hit) -> None:
    limit = Limit("api", "2/m", "3/h", algorithm="fixed")
    time.begin_window("a", 3600)
    assert hit(limit, "a").limit == 2
    assert hit(limit, "a").remaining == 0
    assert hit(limit, "a").limit == 2
    time.pass_by(60)
    assert hit(limit, "a").limit == 3
    assert hit(limit, "a").limit == 3


def test_a_cost_above_the_rate_is_never_let_through(time: Time, hit: Hit) -> None:
    limit = Limit("api", "2/m")
    decision = hit(limit, "a", 3)
    assert not decision
    assert decision.retry_after == inf
    assert decision.remaining == 2


def test_a_cost_above_the_rate_keeps_no_other_hit_out(
    time: Time, hit: Hit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hits, "give_back", lambda windows, cost: None)  # not yet
    assert not hit(Limit("api", "10/m", "90/h"), "a", 11)
    assert hit(Limit("api", "10/m", "90/h"), "a", 10)


def test_a_rate_of_0_lets_nothing_through_and_does_not_ask(hit: Hit) -> None:
    limit = Limit("api", "5/m", "0/s", alias="missing")
    assert not hit(limit, "a")
    assert hit(limit, "a").retry_after == inf
    assert hit(limit, "a").limit == 0


def test_without_a_rate_everything_is_let_through(hit: Hit) -> None:
    decision = hit(Limit("api", None, alias="missing"), "a")
    assert decision
    assert (decision.limit, decision.remaining, decision.rate) == (None, None, None)


def test_limits_that_are_switched_off_let_everything_through(hit: Hit) -> None:
    limit = Limit("api", "1/m")
    hit(limit, "a")
    assert not hit(limit, "a")
    with override_settings(NATS_LIMITS={"ENABLED": False}):
        assert hit(limit, "a")
        assert limit.peek("a")
    assert not hit(limit, "a")


def test_peeking_counts_nothing(time: Time) -> None:
    limit = Limit("api", "2/m", "5/h", "9/d")
    time.begin_window("a", 60)
    limit.hit("a")
    for _ in range(3):
        decision = limit.peek("a")
        assert (decision.allowed, decision.limit, decision.remaining) == (True, 2, 1)
    limit.hit("a")
    assert not limit.peek("a")
    assert asyncio.run(limit.apeek("a")).retry_after == limit.peek("a").retry_after > 0


def test_a_reset_forgets_the_hits_of_one_key(time: Time) -> None:
    limit = Limit("api", "1/m", "1/h")
    for key in ("a", "b"):
        limit.hit(key)
        assert not limit.hit(key)
    limit.reset("a")
    assert limit.hit("a")
    assert not limit.hit("b")
    asyncio.run(limit.areset("b"))
    assert limit.hit("b")


def test_a_reset_forgets_the_window_before_as_well(time: Time) -> None:
    limit = Limit("api", "10/m")
    time.begin_window("a", 60)
    limit.hit("a", 10)
    time.pass_by(60)
    assert not limit.hit("a")
    limit.reset("a")
    assert limit.hit("a", 10)


def test_a_reset_does_nothing_while_limits_are_switched_off(time: Time) -> None:
    limit = Limit("api", "1/m", alias="missing")
    with override_settings(NATS_LIMITS={"ENABLED": False}):
        limit.reset("a")
        asyncio.run(limit.areset("a"))


def test_a_hit_that_is_given_back_after_a_reset_adds_nothing_to_later_windows(
    time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, other = Limit("api", "3/m"), Limit("api", "3/m")
    time.begin_window("a", 60)
    limit.hit("a", 3)
    held: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(hits, "give_back", lambda *arguments: held.append(arguments))
        assert not limit.hit("a", 3)
    other.reset("a")
    hits.give_back(*held[0])
    assert eventually(lambda: _counted(limit) == [-3])
    assert other.peek("a").remaining == 3
    time.pass_by(60)
    assert [bool(other.hit("a")) for _ in range(4)] == [True, True, True, False]


def _counted(limit: Limit) -> list[int]:
    _, (place,) = limit._places(limit._fixed_rates or ())
    return list(drivers.run(limit.session, place.stream.matching(">")).values())  # type: ignore[arg-type]


def test_two_limits_count_apart(time: Time) -> None:
    one, other = Limit("one", "1/m"), Limit("other", "1/m")
    assert one.hit("a")
    assert other.hit("a")


def test_two_objects_of_one_name_count_together(time: Time) -> None:
    assert Limit("api", "1/m").hit("a")
    assert not Limit("api", "1/m").hit("a")


def test_keys_differ_by_their_text_only(time: Time) -> None:
    limit = Limit("api", "1/m")
    assert limit.hit(7)
    assert not limit.hit("7")
    assert limit.hit("7 ")
    assert limit.hit("*")
    assert limit.hit(">")
    assert limit.hit("a.b")
    assert limit.hit()


@pytest.mark.parametrize("cost", [0, -1, 10**15, True, 1.5, "1", None])
def test_a_cost_that_is_not_an_integer_in_its_range_is_refused(hit: Hit, cost: Any) -> None:
    limit = Limit("api", "5/m")
    with pytest.raises(ValueError, match=r"Limit\('api'\): the cost must be an integer"):
        hit(limit, "a", cost)


def test_the_largest_cost_is_refused_and_leaves_no_trace(time: Time, hit: Hit) -> None:
    limit = Limit("api", "5/m")
    assert not hit(limit, "a", 10**15 - 1)
    assert leaves(limit, "a", 5)


@pytest.mark.parametrize("rate", ["1/d", "0/s", None])
@pytest.mark.parametrize("cost", [0, -1, 10**15, True, 1.0, "1", None])
def test_a_wrong_cost_is_refused_without_a_question_too(time: Time, rate: Any, cost: Any) -> None:
    limit = Limit("api", rate)
    for _ in range(2):
        limit.hit("a")
    with pytest.raises(ValueError, match="the cost must be an integer"):
        limit.hit("a", cost)


@pytest.mark.parametrize("rate", ["0/s", None])
def test_a_wrong_key_is_refused_without_a_question_too(hit: Hit, rate: Any) -> None:
    with pytest.raises(TypeError, match="the key must be a string"):
        hit(Limit("api", rate), True)


# Rates that depend on the request ------------------------------------------------------------


def test_a_rate_may_depend_on_the_request(time: Time, hit: Hit) -> None:
    asked = []

    def rate(group: str, request: Any) -> str | None:
        asked.append(group)
        return {"staff": None, "guest": "1/m"}[request]

    limit = Limit("api", rate)
    assert [hit(limit, "a", request="guest").allowed for _ in range(2)] == [True, False]
    assert [hit(limit, "a", request="staff").allowed for _ in range(2)] == [True, True]
    assert set(asked) == {"api"}


def test_a_coroutine_function_may_be_a_rate_of_the_async_methods(time: Time) -> None:
    async def rate(group: str, request: Any) -> str:
        await asyncio.sleep(0)
        return "1/m"

    limit = Limit("api", rate)

    async def hits() -> list[bool]:
        return [(await limit.ahit("a")).allowed for _ in range(2)]

    assert asyncio.run(hits()) == [True, False]
    with pytest.raises(TypeError, match="async method"):
        limit.hit("a")


def test_a_rate_that_a_function_returns_is_checked(hit: Hit) -> None:
    limit = Limit("api", lambda group, request: "often")
    with pytest.raises(ValueError, match=r"Limit\('api'\): the rate 'often'"):
        hit(limit, "a")


# Declaring -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("api",), {}, r"Limit\('api'\) has no rate"),
        (("api", "5/x"), {}, r"Limit\('api'\): the rate '5/x'"),
        (("api", "5/m", "6/60s"), {}, "two rates for the same time: 5/m, 6/m"),
        (("api", "5/m"), {"algorithm": "log"}, "algorithm must be 'sliding' or 'fixed', not 'log'"),
        (("api", "5/m"), {"timeout": 0}, "timeout must be a number of seconds above 0"),
        (("", "5/m"), {}, "name must be a string of 1 to 128 bytes"),
        (("n" * 129, "5/m"), {}, "name must be a string of 1 to 128 bytes"),
        ((7, "5/m"), {}, "name must be a string"),
        (("api", "5/m"), {"timeout": "1"}, "timeout must be a number of seconds above 0, not '1'"),
    ],
)
def test_nonsense_fails_where_the_limit_is_declared(
    arguments: Any, options: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Limit(*arguments, **options)


@pytest.mark.parametrize("option", ["fail_open", "dry_run", "readable"])
def test_a_choice_that_is_not_a_boolean_is_refused(option: str) -> None:
    options: Any = {option: "no"}
    with pytest.raises(TypeError, match=rf"Limit\('api'\): {option} must be True or False"):
        Limit("api", "5/m", **options)


def test_a_list_of_rates_is_refused_with_advice() -> None:
    rates: Any = ["5/m", "9/h"]
    with pytest.raises(TypeError, match="Pass several rates as arguments of their own"):
        Limit("api", rates)


def test_the_alias_limits_is_used_if_there_is_one(configure: Configure, time: Time) -> None:
    limit = Limit("api", "5/m")
    assert limit.alias == "default"
    configure("limits")
    assert limit.alias == "limits"
    assert Limit("api", "5/m", alias="default").alias == "default"


# Dry run -------------------------------------------------------------------------------------


def test_a_dry_run_lets_through_and_logs_what_it_would_refuse(
    time: Time, hit: Hit, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "django_nats")
    limit = Limit("api", "1/m", dry_run=True)
    time.begin_window("a", 60)
    assert not hit(limit, "203.0.113.9").dry_run
    for _ in range(2):
        decision = hit(limit, "203.0.113.9")
        assert decision.allowed
        assert decision.dry_run
        assert decision.retry_after > 0
    assert "Limit('api') would refuse a hit (dry run)" in caplog.text
    assert "203.0.113.9" not in caplog.text
    assert not Limit("api", "1/m").hit("203.0.113.9")


def test_a_dry_run_can_be_set_for_all_limits(time: Time) -> None:
    limit = Limit("api", "1/m")
    limit.hit("a")
    with override_settings(NATS_LIMITS={"DRY_RUN": True}):
        assert limit.hit("a").dry_run
        assert not Limit("api", "1/m", dry_run=False).hit("a")


# On the server -------------------------------------------------------------------------------


def subjects(counters: Counters, limit: Limit) -> list[str]:
    def steps() -> Steps[dict[str, Any]]:
        _, places = limit._places(limit._fixed_rates)
        found = {}
        for _, stream in places:
            found.update((yield from stream.matching(">")))
        return found

    return list(drivers.run(counters.session, steps()))


def test_the_server_sees_a_hash_of_the_key_unless_it_is_to_be_readable(
    alias: Counters, time: Time
) -> None:
    limit = Limit("a.pi", "5/m")
    limit.hit("203.0.113.9")
    (subject,) = subjects(alias, limit)
    assert "203" not in subject
    assert subject.startswith("a=2Epi.")
    readable = Limit("readable", "5/m", readable=True)
    readable.hit("203.0.113.9")
    assert any(each.startswith("readable.203=2E0=2E113=2E9.") for each in subjects(alias, limit))
    with override_settings(NATS_LIMITS={"READABLE_KEYS": True}):
        Limit("all", "5/m").hit("x")
    assert any(each.startswith("all.x.60.") for each in subjects(alias, limit))


def test_rates_of_each_horizon_have_a_stream_of_their_own(alias: Counters, time: Time) -> None:
    limit = Limit("api", "5/s", "6/m", "7/2m", "8/h", "9/d", "10/7d")
    limit.hit("a")
    _, places = limit._places(limit._fixed_rates)
    name = alias.settings.stream.stream
    configs = [each.stream.config for each in places]
    assert [each.stream.removeprefix(f"{name}_LIMITS_") for each in configs] == [
        *("MINUTE", "MINUTE", "HOUR", "HOUR", "DAY", "LONG")
    ]
    for each, config in zip(places, configs, strict=True):
        assert config.max_age >= 2 * each.rate.seconds
        assert config.storage == "memory"
