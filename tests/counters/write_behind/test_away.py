"""incr_later() while the server is away, at MAX_PENDING, and if an increment is refused."""

from __future__ import annotations

import logging
from contextlib import suppress
from time import monotonic
from typing import Any

import pytest
from django.test import override_settings

from django_nats.client import drivers, process
from django_nats.counters import Counter, Counters, write_behind
from django_nats.devserver import NatsServer
from django_nats.exceptions import (
    CounterUnavailable,
    NatsError,
    NotSent,
    OutcomeUnknown,
    PermissionDenied,
    ValueTooLarge,
)
from tests.counters.conftest import PATIENT, Configure
from tests.counters.write_behind.conftest import NEVER, NOTHING
from tests.servers import eventually
from tests.support.logins import authorization
from tests.support.patience import hurry, pause_when_idle

# Away ----------------------------------------------------------------------------------------


def test_increments_that_cannot_be_published_stay_pending(
    configure: Configure, nowhere: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    counters = configure(**nowhere)
    counters.incr_later("k", 3)
    for _ in range(2):
        with pytest.raises(
            CounterUnavailable, match=r"^Increments of 1 counter of the stream test_"
        ) as caught:
            counters.flush(timeout=0)
        assert caught.value.may_have_happened is False
    counters.incr_later("k")
    pending = counters.pending
    assert pending[:2] == (1, 4)
    assert pending.age > 0
    assert "No connection to NATS" in pending.error
    assert caplog.text.count("have to wait") == 1


def test_flush_returns_under_fail_open(configure: Configure, nowhere: dict[str, object]) -> None:
    counters = configure(**nowhere, FAIL_OPEN=True)
    counters.incr_later("k")
    counters.flush(timeout=0)
    assert counters.pending.counters == 1


def test_flush_gives_up_at_its_timeout(configure: Configure, nowhere: dict[str, object]) -> None:
    """The timeout is DEADLINE by default."""
    counters = configure(**nowhere, DEADLINE=0.3)
    counters.incr_later("k")
    with pytest.raises(CounterUnavailable):
        counters.flush()
    with (
        write_behind.backlog("default")._publishing,
        pytest.raises(CounterUnavailable, match="another thread is publishing"),
    ):
        counters.flush(timeout=0.1)


def test_increments_added_during_a_failed_flush_stay_pending(
    patient: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are added to counters of the failed batch and to counters of later batches."""
    names = [f"k.{number}" for number in range(1100)]
    for name in names:
        patient.incr_later(name)

    def fail(*args: object) -> None:
        for name in (names[0], names[-1], "new"):
            patient.incr_later(name, 10)
        assert patient.pending[:2] == (1101, 1130)
        raise NotSent

    with monkeypatch.context() as patch:
        patch.setattr(drivers, "run", fail)
        with pytest.raises(NotSent):
            patient.flush(timeout=0)
    assert patient.pending[:2] == (1101, 1130)
    patient.flush()
    assert patient.get_many([names[0], names[1], names[-1], "new"]) == {
        names[0]: 11,
        names[1]: 1,
        names[-1]: 11,
        "new": 10,
    }


def test_the_age_is_that_of_the_oldest_pending_increment(patient: Counters) -> None:
    began = monotonic()
    patient.incr_later("k")
    assert eventually(lambda: patient.pending.age > 0.05)
    patient.flush()
    patient.incr_later("k")
    assert patient.pending.age < monotonic() - began - 0.05


def test_pending_increments_are_published_after_an_outage(
    configure: Configure, own_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    counters = configure(on=own_server, STORAGE="file", FLUSH_INTERVAL=0.01)
    counters.incr_later("k")
    counters.flush()
    own_server.kill()
    for number in range(100):
        counters.incr_later("k")
        counters.incr_later(f"k.{number}")
    assert eventually(lambda: counters.pending.error)
    assert counters.pending[:2] == (101, 200)
    own_server.start()
    assert eventually(lambda: counters.pending == NOTHING)
    assert Counter("k") == 101
    assert counters.total("k.*") == 100
    assert eventually(
        lambda: "published again" in caplog.text
    )  # logged when everything is published
    assert caplog.text.count("have to wait") == caplog.text.count("published again") == 1


def test_after_an_error_one_increment_is_tried_first(patient: Counters) -> None:
    """A continuing outage then leaves at most one increment in doubt, and costs one attempt."""
    backlog = write_behind.backlog("default")
    increments = [patient.stream.publishing.increment("k", 1) for _ in range(3000)]
    assert [len(each) for each in backlog._chunks(increments)] == [1024, 1024, 952]
    backlog._error = "error"
    assert [len(each) for each in backlog._chunks(increments)] == [1, 1024, 1024, 951]


def test_a_long_outage_causes_few_attempts(
    configure: Configure, nowhere: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one increment is tried at a time, and FLUSH_AT does not wake the flusher."""
    counters = configure(**nowhere, FLUSH_AT=100)
    backlog = write_behind.backlog("default")
    increment, tried, woken = backlog._stream.publishing.increment, [], []

    def count(*args: Any) -> Any:
        tried.append(args)
        return increment(*args)

    monkeypatch.setattr(backlog._stream.publishing, "increment", count)
    for number in range(90):
        counters.incr_later(f"k.{number}")
    for _ in range(3):
        with pytest.raises(CounterUnavailable):
            counters.flush(timeout=0)
    assert len(tried) == 90 + 1 + 1
    with monkeypatch.context() as patch:
        patch.setattr(backlog._flusher, "wake", lambda: woken.append(1))
        for number in range(1000):
            counters.incr_later(f"k.{number}")
        assert woken == []
    with pytest.raises(CounterUnavailable):
        counters.flush(timeout=0.3)
    assert len(tried) < 1000


@pytest.mark.usefixtures("without_pings")
def test_an_unacknowledged_increment_counts_once(
    configure: Configure, own_server: NatsServer
) -> None:
    counters = configure(on=own_server, FLUSH_INTERVAL=NEVER, REQUEST_TIMEOUT=60, DEADLINE=60)
    counters.incr("k")
    before = counters.stream.increments.recognised
    counters.incr_later("k", 10)
    pause_when_idle(own_server, counters)
    hurry(counters, 0.2)
    with pytest.raises(CounterUnavailable) as caught:
        counters.flush(timeout=0)
    assert caught.value.may_have_happened is True
    counters.incr_later("k", 100)
    assert counters.pending[:2] == (1, 110)
    own_server.resume()
    hurry(counters, 60)
    counters.flush()
    assert Counter("k") == 111
    assert counters.stream.increments.recognised == before + 1


@pytest.mark.usefixtures("without_pings")
def test_increments_past_the_duplicate_window_are_given_up_and_logged(
    configure: Configure, own_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The server no longer knows their ids, so sending them again might count them twice."""
    counters = configure(on=own_server, FLUSH_INTERVAL=NEVER, REQUEST_TIMEOUT=0.3, DEADLINE=0.3)
    assert eventually(lambda: is_answered(counters))
    counters.incr_later("k", 10)
    counters.incr_later("l", -1)
    pause_when_idle(own_server, counters)
    with pytest.raises(CounterUnavailable):
        counters.flush(timeout=0)
    counters.incr_later("k", 100)

    def is_given_up() -> bool:
        with pytest.raises(CounterUnavailable):
            counters.flush(timeout=0)
        return counters.pending.total == 100

    assert eventually(is_given_up)
    assert "Gave up 2 increments" in caplog.text
    assert "may be missing from the totals" in caplog.text
    assert "Counters: k (+10), l (-1)" in caplog.text
    own_server.resume()
    counters.flush(timeout=60)
    assert eventually(lambda: is_answered(counters))
    hurry(counters, 60)
    assert Counter("k") == 110  # this one had arrived
    assert counters.stream.increments.doubts._doubts == {}


def is_answered(counters: Counters) -> bool:
    try:
        counters.get_many(["k"])
    except CounterUnavailable:
        return False
    return True


@pytest.mark.usefixtures("without_pings")
def test_discard_clears_increments_in_doubt(configure: Configure, own_server: NatsServer) -> None:
    counters = configure(on=own_server, FLUSH_INTERVAL=NEVER)
    counters.incr("k")
    counters.incr_later("k", 10)
    pause_when_idle(own_server, counters)
    hurry(counters, 0.2)
    with pytest.raises(CounterUnavailable):
        counters.flush(timeout=0)
    assert "k" in counters.stream.increments.doubts._doubts
    write_behind.discard()
    assert counters.pending == NOTHING
    assert counters.stream.increments.doubts._doubts == {}


# Bounds --------------------------------------------------------------------------------------


def test_max_pending_bounds_the_number_of_waiting_counters(
    configure: Configure, nowhere: dict[str, object]
) -> None:
    """Counters that are waiting already can still be added to."""
    counters = configure(**nowhere, MAX_PENDING=3)
    for name in "abc":
        counters.incr_later(name)
    with pytest.raises(
        CounterUnavailable, match=r"^The counter d was not changed, since 3 .*\(MAX_PENDING\)"
    ):
        counters.incr_later("d")
    for name in "abc":
        counters.incr_later(name)
    assert counters.pending[:2] == (3, 6)


def test_flushing_makes_room_under_max_pending(configure: Configure, counters: Counters) -> None:
    counters = configure(FLUSH_INTERVAL=NEVER, MAX_PENDING=1)
    counters.incr_later("a")
    with pytest.raises(
        CounterUnavailable, match=r"have unpublished increments already \(MAX_PENDING\)$"
    ):
        counters.incr_later("b")
    counters.flush(float("inf"))
    counters.incr_later("b")
    with pytest.raises(ValueError, match="timeout must be a number of seconds"):
        counters.flush(float("nan"))
    counters.flush()
    assert counters.get_many("ab") == {"a": 1, "b": 1}


def test_increments_over_max_pending_are_dropped_under_fail_open(
    configure: Configure, nowhere: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    counters = configure(**nowhere, MAX_PENDING=1, FAIL_OPEN=True)
    for name in "abcda":
        counters.incr_later(name)
    assert counters.pending[:2] == (1, 2)
    assert caplog.text.count("MAX_PENDING") == 1
    write_behind.discard()
    for name in "xyz":
        counters.incr_later(name)
    assert caplog.text.count("MAX_PENDING") == 2


# Refused -------------------------------------------------------------------------------------


def test_a_refused_counter_does_not_block_others(caplog: pytest.LogCaptureFixture) -> None:
    """The refused increment stays pending, in case the permission is granted later."""
    user = 'user: web, password: secret, permissions: { publish: { deny: ["hits.secret"] } }'
    login = {"USER": "web", "PASSWORD": "secret", "STREAM": "HITS", "FLUSH_INTERVAL": NEVER}
    with NatsServer(token="", config=authorization(f"users: [{{ {user} }}]")) as server:
        aliases = {"default": {"LOCATION": server.url, **login, **PATIENT}}
        with override_settings(NATS_COUNTERS=aliases):
            counters = Counters()
            counters.incr_later("secret", 7)
            for total in (1, 2):
                counters.incr_later("public")
                with pytest.raises(PermissionDenied, match="The counter secret of the stream HITS"):
                    counters.flush()
                assert counters.get_many(["secret", "public"]) == {"secret": 0, "public": total}
            assert counters.pending[:2] == (1, 7)
            assert caplog.text.count("have to wait") == 1
        write_behind.discard()
        process.close()


def test_an_increment_refused_while_in_doubt_stays_pending(
    patient: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later increments do not replace it."""
    patient.incr("k")
    answers: list[NatsError] = [OutcomeUnknown(), PermissionDenied(), PermissionDenied()]

    def answer(_: object, steps: Any) -> None:
        with suppress(StopIteration):
            next(steps)
            steps.send([answers.pop(0)])

    with monkeypatch.context() as patch:
        patch.setattr(drivers, "run", answer)
        for n, timeout in ((10, 0), (100, 5), (1000, 5)):
            patient.incr_later("k", n)
            with pytest.raises(NatsError):
                patient.flush(timeout)
    assert patient.pending[:2] == (1, 1110)
    patient.flush()
    assert Counter("k") == 1111


def test_an_increment_of_too_many_digits_is_refused_alone(patient: Counters) -> None:
    patient.incr_later("k", 10**10000)
    for number in range(2000):
        patient.incr_later(f"many.{number}")
    with pytest.raises(ValueTooLarge, match="counter k of the stream"):
        patient.flush()
    assert patient.total("many.*") == 2000
    patient.incr_later("k", 5 - 10**10000)
    patient.flush()
    assert Counter("k") == 5


def test_errors_are_logged_without_secrets(
    configure: Configure, nowhere: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    counters = configure(**{**nowhere, "TOKEN": "open-sesame"})
    counters.incr_later("k")
    with caplog.at_level(logging.DEBUG), pytest.raises(CounterUnavailable) as caught:
        counters.flush(timeout=0)
    texts = (
        caplog.text
        + str(caught.value)
        + counters.pending.error
        + repr(write_behind.backlog("default"))
    )
    assert "open-sesame" not in texts
