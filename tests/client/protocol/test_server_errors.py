"""The server's numbers for errors, each of which becomes an exception."""

from __future__ import annotations

import re

import pytest

from django_nats.client.protocol import server_errors, wire
from django_nats.client.protocol.wire import Reply, compact_json
from django_nats.exceptions import (
    BucketFull,
    LimitReached,
    NoLeader,
    NotServed,
    ServerError,
    Unavailable,
    ValueTooLarge,
    WrongRevision,
)

FIRST, LAST = 10001, 10227
"""The numbers of nats-server 2.15.1."""
KINDS: dict[type[Exception], set[int]] = {
    WrongRevision: {10071, 10164},
    BucketFull: {10002, 10023, 10028, 10047, 10077},
    NoLeader: {10008, 10009, 10118, 10119},
    NotServed: {10005, 10007, 10035, 10039, 10076, 10096, 10120, 10163, 10167, 10194, 10195},
    LimitReached: {10026, 10027},
    ValueTooLarge: {10054},
}


def refusal(err_code: int, description: str = "because") -> Reply:
    error = {"code": 400, "err_code": err_code, "description": description}
    return Reply(b"", compact_json({"error": error, "stream": "KV_b", "seq": 0}))


def raised(reply: Reply) -> Exception:
    errors = (ServerError, ValueTooLarge)
    with pytest.raises(errors) as caught:
        wire.parse_api(reply)
    with pytest.raises(errors, match=re.escape(str(caught.value))):
        wire.parse_ack(reply, b"KV_b")
    return caught.value


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_these_numbers_and_no_others_become_an_exception_of_their_own(
    kind: type[Exception],
) -> None:
    found = {each for each in range(FIRST, LAST + 1) if type(raised(refusal(each))) is kind}
    assert found == KINDS[kind]


def test_every_other_number_is_a_plain_server_error() -> None:
    known = set().union(*KINDS.values())
    for number in [0, *range(FIRST, LAST + 1), 99999]:
        if number not in known:
            assert type(raised(refusal(number))) is ServerError


def test_states_of_the_account_and_the_server_are_outages() -> None:
    for number in KINDS[NotServed] | KINDS[LimitReached] | KINDS[NoLeader]:
        assert isinstance(raised(refusal(number)), Unavailable)


def test_an_error_has_the_numbers_and_the_words_of_the_server() -> None:
    error = raised(refusal(10060, "expected stream does not match"))
    assert isinstance(error, ServerError)
    assert (error.code, error.err_code) == (400, 10060)
    text = "The server refused the request: expected stream does not match (10060)"
    assert str(error) == text


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (10005, "Start the servers that are down, or correct REPLICAS or PLACEMENT"),
        (10026, "raise max_consumers"),
        (10027, "Raise max_streams"),
        (10039, "Enable JetStream for the account"),
        (10074, "Set REPLICAS to 1"),
        (10076, "Start nats-server with -js"),
        (10118, "Start the servers that store it"),
        (10120, "JetStream limits"),
        (10167, "more writes at once"),
        (10194, "newer version of nats-server"),
    ],
)
def test_an_error_says_what_to_do(number: int, advice: str) -> None:
    message = str(raised(refusal(number)))
    assert message.startswith(f"The server refused the request: because ({number}). ")
    assert advice in message


def test_only_a_full_bucket_leads_to_evict() -> None:
    for number in range(FIRST, LAST + 1):
        assert "EVICT" not in str(raised(refusal(number)))


def test_the_servers_words_are_shortened_and_escaped() -> None:
    message = str(raised(refusal(10025, "\x1b[31m" + "x" * 500)))
    assert "\x1b" not in message
    assert message.count("x") < server_errors.MAX_QUOTED + 10


def test_a_reworded_error_keeps_class_numbers_and_cause() -> None:
    error = raised(refusal(10039))
    assert isinstance(error, ServerError)
    other = server_errors.reworded(error, "The bucket b is not served")
    assert type(other) is NotServed
    assert (str(other), other.code, other.err_code) == ("The bucket b is not served", 400, 10039)
    assert other.__cause__ is error
