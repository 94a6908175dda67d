"""Headers and responses of requests that limits have counted or refused."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from django_nats.exceptions import NotSent
from django_nats.limits import Decision, Rate, Ratelimited
from django_nats.limits.rates import LONGEST_S
from django_nats.limits.responses import (
    TooManyRequests,
    limit_headers,
    note,
    refuse,
    tighter,
    with_headers,
)

RATE = Rate(5, 60)
LET_THROUGH = Decision(True, RATE, 3, 41.2)
REFUSED = Decision(False, RATE, 0, 95.0, 41.2)
NEVER = Decision(False, Rate(0, 60), 0, 0.0, math.inf)
UNLIMITED = Decision(True)
AWAY_LET_THROUGH = Decision(True, error=NotSent())
AWAY_REFUSED = Decision(False, error=NotSent())


def decided(*decisions: Decision | None) -> Any:
    request: Any = HttpRequest()
    for each in decisions:
        note(request, each)
    return request


def test_separate_headers_are_numbers() -> None:
    assert limit_headers(LET_THROUGH, "separate") == {
        "RateLimit-Limit": "5",
        "RateLimit-Remaining": "3",
        "RateLimit-Reset": "42",
    }


def test_the_headers_of_the_draft_are_structured_fields() -> None:
    assert limit_headers(LET_THROUGH, "draft") == {
        "RateLimit-Policy": '"5/m";q=5;w=60',
        "RateLimit": '"5/m";r=3;t=42',
    }


def test_both_forms_may_be_sent() -> None:
    assert limit_headers(REFUSED, "both") == {
        **limit_headers(REFUSED, "separate"),
        **limit_headers(REFUSED, "draft"),
    }


def test_headers_may_be_switched_off() -> None:
    assert limit_headers(LET_THROUGH, None) == {}


def test_a_refused_client_is_told_when_it_would_be_let_through() -> None:
    assert limit_headers(REFUSED, "separate")["RateLimit-Reset"] == "42"
    assert limit_headers(REFUSED, "draft")["RateLimit"] == '"5/m";r=0;t=42'


@override_settings(NATS_LIMITS={"STATUS": 429, "HEADERS": None})
def test_a_refusal_says_when_to_come_back_without_the_other_headers() -> None:
    headers = refuse(decided(REFUSED), REFUSED).headers
    assert headers["Retry-After"] == "42"
    assert not any(name.startswith("RateLimit") for name in headers)


@pytest.mark.parametrize("decision", [UNLIMITED, AWAY_LET_THROUGH, AWAY_REFUSED])
def test_without_a_count_there_are_no_headers_of_it(decision: Decision) -> None:
    assert limit_headers(decision, "both") == {}


@given(
    st.builds(Rate, st.integers(0, 10**15 - 1), st.integers(1, LONGEST_S)),
    st.booleans(),
    st.integers(0, 10**15 - 1),
    st.floats(0, 2 * LONGEST_S),
    st.floats(0, LONGEST_S) | st.just(math.inf),
)
def test_headers_hold_whole_numbers_that_a_structured_field_may_hold(
    rate: Rate, allowed: bool, remaining: int, reset_after: float, retry_after: float
) -> None:
    decision = Decision(allowed, rate, remaining, reset_after, 0.0 if allowed else retry_after)
    headers = limit_headers(decision, "both")
    for name in ("Limit", "Remaining", "Reset"):
        assert re.fullmatch("[0-9]{1,15}", headers[f"RateLimit-{name}"])
    item = r'"[ -!#-\[\]-~]+"'
    number = "(0|[1-9][0-9]{0,14})"
    assert re.fullmatch(f"{item};r={number};t={number}", headers["RateLimit"])
    assert re.fullmatch(f"{item};q={number};w=[1-9][0-9]*", headers["RateLimit-Policy"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (REFUSED, LET_THROUGH),
        (REFUSED, UNLIMITED),
        (NEVER, REFUSED),
        (REFUSED, Decision(False, RATE, 0, 99.0, 41.1)),
        (LET_THROUGH, Decision(True, RATE, 4, 1.0)),
        (LET_THROUGH, UNLIMITED),
        (LET_THROUGH, AWAY_LET_THROUGH),
        (AWAY_REFUSED, LET_THROUGH),
    ],
)
def test_the_tightest_limit_wins(one: Decision, other: Decision) -> None:
    assert tighter(one, other) is tighter(other, one) is one
    assert decided(one, None, other).limit_decision is one
    assert decided(other, one, None).limit_decision is one


@pytest.mark.parametrize(
    ("decisions", "limited"),
    [
        ((None,), False),
        ((LET_THROUGH,), False),
        ((UNLIMITED,), False),
        ((REFUSED,), True),
        ((REFUSED, LET_THROUGH), True),
        ((REFUSED, None), True),
        ((LET_THROUGH, REFUSED), True),
    ],
)
def test_a_request_is_limited_if_any_limit_refuses_it(decisions: Any, limited: bool) -> None:
    assert decided(*decisions).limited is limited


def test_where_no_limit_applies_there_is_no_decision() -> None:
    assert decided(None).limit_decision is None


@override_settings(NATS_LIMITS={"STATUS": 403})
@pytest.mark.parametrize(
    ("decision", "text"),
    [
        (REFUSED, "Too many requests. Try again in 42 s."),
        (NEVER, "Too many requests."),
        (AWAY_REFUSED, "Too many requests."),
    ],
)
def test_with_status_403_a_refusal_is_an_exception(decision: Decision, text: str) -> None:
    with pytest.raises(Ratelimited) as caught:
        refuse(decided(decision), decision)
    assert caught.value.decision is decision
    assert str(caught.value) == text


@override_settings(NATS_LIMITS={"STATUS": 429})
@pytest.mark.parametrize(
    ("decision", "retry_after"),
    [
        (REFUSED, "42"),
        (Decision(False, RATE, 0, 1.0, 0.01), "1"),
        (AWAY_REFUSED, None),
        (NEVER, None),
    ],
)
def test_with_status_429_a_refusal_is_a_response_that_says_when_to_come_back(
    decision: Decision, retry_after: str | None
) -> None:
    response = refuse(decided(decision), decision)
    assert isinstance(response, TooManyRequests)
    assert response.status_code == 429
    assert response.headers.get("Retry-After") == retry_after
    assert response.content.startswith(b"Too many requests.")


@pytest.mark.parametrize(
    ("status", "expected"), [(200, False), (302, False), (403, True), (429, True), (503, True)]
)
def test_only_refusals_say_when_to_come_back(status: int, expected: bool) -> None:
    response = with_headers(decided(REFUSED), HttpResponse(status=status))
    assert ("Retry-After" in response.headers) is expected
    assert response.headers["RateLimit-Remaining"] == "0"


def test_a_forbidden_page_that_no_limit_refused_says_nothing_of_coming_back() -> None:
    response = with_headers(decided(LET_THROUGH), HttpResponse(status=403))
    assert "Retry-After" not in response.headers


def test_a_header_that_the_view_has_set_stays() -> None:
    response = HttpResponse(headers={"RateLimit-Limit": "7"})
    with_headers(decided(LET_THROUGH), response)
    assert response.headers["RateLimit-Limit"] == "7"
    assert response.headers["RateLimit-Remaining"] == "3"


def test_a_streamed_response_has_headers() -> None:
    response = with_headers(decided(LET_THROUGH), StreamingHttpResponse([b""]))
    assert response.headers["RateLimit-Limit"] == "5"


@pytest.mark.parametrize("result", [None, {"items": []}, (200, {})])
def test_what_is_no_response_is_returned_as_it_is(result: Any) -> None:
    assert with_headers(decided(LET_THROUGH), result) is result


def test_a_request_that_no_limit_has_seen_gets_no_headers() -> None:
    assert "RateLimit-Limit" not in with_headers(HttpRequest(), HttpResponse()).headers
