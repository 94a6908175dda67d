"""Which failures of single keys are errors of an operation on many keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from django_nats.cache.unstored import raise_failure, raise_unavailable
from django_nats.client.protocol.server_errors import error_of
from django_nats.exceptions import BucketFull, NatsError, NotSent, PermissionDenied, WrongRevision


def raised(
    function: Callable[[Mapping[str, NatsError]], None], *errors: NatsError
) -> NatsError | None:
    try:
        function({str(number): each for number, each in enumerate(errors)})
    except NatsError as error:
        return error
    return None


@pytest.mark.parametrize("number", [10120, 10163, 10167])
def test_a_refusal_of_single_keys_does_not_say_that_the_server_is_away(number: int) -> None:
    refusals = [error_of({"err_code": number}), PermissionDenied("No."), BucketFull("Full.")]
    assert raised(raise_unavailable, *refusals) is None


def test_a_server_that_is_away_is_an_error_of_the_operation() -> None:
    for away in (error_of({"err_code": 10039}), NotSent("away")):
        assert raised(raise_unavailable, PermissionDenied("No."), away) is away


def test_a_key_that_was_changed_is_no_error_of_a_delete() -> None:
    changed, busy = WrongRevision("changed"), error_of({"err_code": 10167})
    assert raised(raise_failure, changed) is None
    assert raised(raise_failure, changed, busy) is busy
