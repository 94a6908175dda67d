"""The exception of a refused request."""

from __future__ import annotations

import copy
import math
import pickle

import pytest

from django_nats.limits import Decision, Rate, Ratelimited

REFUSED = Decision(False, Rate(5, 60), 0, 95.0, 41.2)


@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_copy_has_the_decision_and_the_text(copied: object) -> None:
    error = copied(Ratelimited(REFUSED))  # type: ignore[operator]
    assert error.decision.retry_after == 41.2
    assert str(error) == "Too many requests. Try again in 42 s."


@pytest.mark.parametrize(("wait", "text"), [(0.01, "in 1 s"), (1.0, "in 1 s"), (59.5, "in 60 s")])
def test_the_text_says_when_to_try_again(wait: float, text: str) -> None:
    assert text in str(Ratelimited(Decision(False, Rate(5, 60), 0, 95.0, wait)))


def test_the_text_does_not_say_when_to_try_again_if_that_is_of_no_use() -> None:
    never = Decision(False, Rate(0, 60), 0, 0.0, math.inf)
    assert str(Ratelimited(never)) == "Too many requests."
