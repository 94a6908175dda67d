"""The pauses between attempts to connect, with the test's own clock and random numbers."""

from __future__ import annotations

import errno
import random
import ssl

import pytest

from django_nats.client.transport.backoff import Backoff, is_refusal
from django_nats.client.transport.progress import NoAnswer, TLSRefused
from django_nats.exceptions import NotSent

NOBODY = ConnectionRefusedError("nobody listens")
HUNG_UP = ConnectionResetError("hung up")
REFUSED = Exception("nats: 'Authorization Violation'")
LONG = 1000.0


class Chance:
    """A source of random numbers, each of which is the same share of its range."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self.value


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def backoff(chance: float = 1.0, clock: Clock | None = None) -> Backoff:
    return Backoff(4.0, 15.0, Chance(chance), clock or Clock())


def test_of_many_processes_some_retry_at_once_and_the_rest_later() -> None:
    for number in (26, 0):
        assert backoff(0.0).lost(LONG, number, 1) == 0
        assert backoff(0.54).lost(LONG, number, 1) <= 0.05
        assert 1.2 <= backoff(0.55).lost(LONG, number, 1) <= 1.25


def test_few_processes_all_retry_at_once() -> None:
    assert backoff(0.99).lost(LONG, 25, 1) <= 0.05


def test_all_retry_at_once_if_there_are_other_servers() -> None:
    assert backoff(0.99).lost(LONG, 1000, 2) <= 0.05


def test_a_restarting_server_is_retried_quickly() -> None:
    clock = Clock()
    law = backoff(clock=clock)
    law.lost(LONG, 1, 1)
    pauses = []
    while clock.now < 103:
        pauses.append(law.failed([NOBODY]))
        clock.now += pauses[-1]
    assert pauses[:3] == [0.1, 0.2, 0.4]
    assert set(pauses[3:]) == {0.4}


def test_a_server_that_stays_away_is_retried_more_and_more_slowly() -> None:
    clock = Clock()
    law = backoff(clock=clock)
    law.lost(LONG, 1, 1)
    for _ in range(10):
        law.failed([NOBODY])
    clock.now += 3
    assert [law.failed([NOBODY]) for _ in range(5)] == [0.4, 0.8, 1.6, 3.2, 4.0]


def test_the_pauses_have_full_jitter() -> None:
    law = backoff(0.0)
    assert law.lost(LONG, 1, 1) == 0
    assert [law.failed([NOBODY]) for _ in range(20)] == [0] * 20


LACKING = OSError(errno.EADDRNOTAVAIL, "no IPv6 here")
DROPPED = NoAnswer("10.0.0.1:4222 did not answer")
UNREACHABLE = [OSError(errno.ENETUNREACH, ""), OSError(errno.EHOSTUNREACH, "")]


@pytest.mark.parametrize("others", [[NOBODY], [LACKING], [DROPPED], [DROPPED, LACKING]])
def test_a_server_that_restarts_is_retried_quickly_wherever_the_others_are(
    others: list[Exception],
) -> None:
    assert backoff().failed([NOBODY, *others]) == 0.05
    assert backoff().failed([*others, NOBODY]) == 0.05


@pytest.mark.parametrize(
    "failures", [[DROPPED], UNREACHABLE, [NOBODY, TimeoutError()], [NOBODY, HUNG_UP]]
)
def test_a_server_out_of_reach_is_retried_slowly(failures: list[Exception]) -> None:
    assert backoff().failed(failures) == 4.0


def test_a_server_that_hangs_up_is_retried_slowly() -> None:
    """It may be a proxy whose server is down. All clients reach the proxy."""
    assert backoff(0.0).failed([HUNG_UP]) == 1.0
    assert backoff(1.0).failed([HUNG_UP]) == 4.0
    assert backoff(0.0).failed([NOBODY, HUNG_UP]) == 1.0
    assert backoff(0.0).failed([TimeoutError()]) == 1.0


def test_a_server_that_refuses_the_login_is_retried_more_and_more_slowly() -> None:
    law = backoff()
    assert [law.failed([REFUSED]) for _ in range(6)] == [1, 2, 4, 8, 15, 15]
    law = backoff(0.0)
    assert [law.failed([REFUSED]) for _ in range(6)] == [0.5, 1, 2, 4, 7.5, 7.5]


def test_a_refusal_by_one_of_several_servers_counts() -> None:
    assert backoff().failed([REFUSED, NOBODY]) == 1.0


def test_a_connection_that_lasted_resets_the_pauses() -> None:
    law = backoff()
    for _ in range(6):
        law.failed([REFUSED])
        law.failed([NOBODY])
    law.lost(5.0, 1, 1)
    assert (law.failed([NOBODY]), law.failed([REFUSED])) == (0.1, 1.0)


def test_a_server_that_drops_every_connection_is_retried_more_and_more_slowly() -> None:
    law = backoff()
    assert [law.lost(0.1, 1, 1) for _ in range(9)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 4.0, 4.0]


@pytest.mark.parametrize("failure", [NOBODY, HUNG_UP, REFUSED])
def test_no_pause_is_longer_than_the_settings_allow(failure: Exception) -> None:
    law = Backoff(0.3, 0.7, Chance(1.0), Clock())
    for _ in range(20):
        assert law.lost(0.0, 1000, 1) <= 0.3
        assert law.failed([failure]) <= (0.7 if failure is REFUSED else 0.3)


@pytest.mark.parametrize(
    "error",
    [
        REFUSED,
        Exception("nats: 'user authentication expired'"),
        Exception("nats: 'User Authentication Revoked'"),
        NotSent('nats: permissions violation for subscription to "_inbox.x.*"'),
        ssl.SSLCertVerificationError("certificate verify failed"),
        TLSRefused("the server asks for a client's certificate"),
    ],
)
def test_refusals_are_recognised(error: Exception) -> None:
    assert is_refusal(error)


@pytest.mark.parametrize("error", [NOBODY, HUNG_UP, TimeoutError(), OSError("no route")])
def test_other_errors_are_not_refusals(error: Exception) -> None:
    assert not is_refusal(error)


@pytest.mark.parametrize("failure", [NOBODY, HUNG_UP])
def test_of_200_clients_at_most_150_a_second_reconnect(
    failure: Exception,
) -> None:
    """The server is down for 30 seconds. Five seconds after its return, all are connected."""
    tries: list[float] = []
    back: list[float] = []
    for client in range(200):
        clock = Clock()
        clock.now = 0.0
        law = Backoff(4.0, 15.0, random.Random(client), clock)
        clock.now = law.lost(LONG, client + 1, 1)
        while clock.now < 30:
            if failure is HUNG_UP:  # an attempt without a listening socket reaches no server
                tries.append(clock.now)
            clock.now += law.failed([failure])
        tries.append(clock.now)
        back.append(clock.now - 30)
    assert max(back) < 5
    assert max(sum(start <= each < start + 1 for each in tries) for start in tries) <= 150


def test_a_later_loss_counts_as_a_restart_again() -> None:
    clock = Clock()
    law = backoff(clock=clock)
    for _ in range(2):
        clock.now += LONG
        law.lost(LONG, 1, 1)
        assert [law.failed([NOBODY]) for _ in range(5)] == [0.1, 0.2, 0.4, 0.4, 0.4]
