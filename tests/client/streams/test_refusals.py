"""Streams that the server refuses to open: the error, and one log line when it begins and ends."""

from __future__ import annotations

from typing import Any

import pytest

from django_nats.client.counters.config import CounterConfig
from django_nats.client.counters.stream import CounterStream
from django_nats.client.kv import full
from django_nats.client.kv.bucket import Bucket
from django_nats.client.kv.config import BucketConfig
from django_nats.exceptions import (
    BucketFull,
    CounterUnavailable,
    LimitReached,
    NatsError,
    NoLeader,
    NotServed,
    OutcomeUnknown,
    PermissionDenied,
    ServerError,
    ServerTooOld,
)
from tests.support import counting
from tests.support.answers import (
    MISSING,
    WRITE,
    Clock,
    Session,
    ack,
    document,
    finish,
    opened,
    refusal,
    run_until_error,
    stored,
    stream_info,
)
from tests.support.counting import NO_RESPONDERS

pytestmark = pytest.mark.usefixtures("clock")
LEVEL = document({"api": {"level": 1}})
OFF, OFFLINE = 10039, 10194
PURGED = document({"purged": 1})
UNANNOUNCED = "Its old value may still be readable in the near caches of other processes, since"


def denied() -> PermissionDenied:
    return PermissionDenied("No permission to publish to $KV.b.k")


def new_bucket() -> Bucket:
    """Return a bucket that this process has not opened yet."""
    return Bucket(BucketConfig("b"), Session())


@pytest.mark.parametrize("number", [10039, 10076, 10120, 10194])
def test_a_stream_that_is_not_served_is_refused_at_once_and_named(number: int) -> None:
    bucket = new_bucket()
    with pytest.raises(NotServed, match=f"^The bucket b is not served: .* because .{number}.[.] "):
        finish(bucket.get(":1:k"), refusal(number), *[LEVEL] * (number == OFFLINE))
    found, _ = finish(bucket.get(":1:k"), stream_info(bucket.config), MISSING)
    assert found is None


def test_an_open_stream_that_is_switched_off_is_not_waited_for() -> None:
    bucket = opened()
    with pytest.raises(NotServed):
        finish(bucket.get(":1:k"), NO_RESPONDERS, refusal(OFF))
    again, _ = finish(bucket.get(":1:k"), NO_RESPONDERS, stream_info(bucket.config), [stored(7)])
    assert again.revision == 7


def test_a_stream_is_not_asked_after_a_reconnect_while_it_is_not_served() -> None:
    bucket = opened()
    bucket.stream.opening.reopen()
    with pytest.raises(NotServed):
        finish(bucket.get(":1:k"), refusal(OFF))


def test_jetstream_that_never_answered_is_not_enabled(clock: Clock) -> None:
    with pytest.raises(NotServed, match=r"bucket b is not served: JetStream is not enabled"):
        finish(new_bucket().get(":1:k"), NO_RESPONDERS)
    error, _ = run_until_error(clock, opened().get(":1:k"), NO_RESPONDERS)
    assert type(error) is NoLeader  # it may be back in a moment
    assert "JetStream is not enabled" in str(error)


def test_a_limit_of_streams_is_an_outage() -> None:
    bucket = new_bucket()
    with pytest.raises(LimitReached, match=r"^The bucket b cannot be created: .*max_streams"):
        finish(bucket.get(":1:k"), refusal(10059), LEVEL, refusal(10027))


@pytest.mark.parametrize(
    ("number", "advice"), [(10113, "Set MAX_BYTES[.]"), (10122, "Lower MAX_BYTES")]
)
def test_a_refused_bucket_says_what_to_do_about_max_bytes(number: int, advice: str) -> None:
    with pytest.raises(ServerError, match=f"^The bucket b cannot be created: .*{advice}") as caught:
        finish(new_bucket().get(":1:k"), refusal(10059), LEVEL, refusal(number))
    assert type(caught.value) is ServerError


def test_an_outage_and_its_end_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    bucket = new_bucket()
    for answers in (
        [refusal(OFF)],
        [refusal(10059), LEVEL, refusal(10027)],
        [refusal(OFFLINE), LEVEL],
    ):
        with pytest.raises(ServerError):
            finish(bucket.get(":1:k"), *answers)
    assert [each[:33] for each in caplog.messages] == ["The bucket b is not served: The s"]
    for _ in range(2):
        bucket.stream.opening.reopen()
        finish(bucket.get(":1:k"), stream_info(bucket.config), MISSING)
    assert caplog.messages[1:] == ["The bucket b is served again"]


def test_a_counter_stream_of_a_newer_server_needs_that_server() -> None:
    stream = CounterStream(CounterConfig("C", "c"), Session())
    with pytest.raises(ServerTooOld, match="counter stream C needs nats-server"):
        finish(stream.incr("k", 1), counting.refusal(OFFLINE), LEVEL)


# Single requests -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [10120, 10163, 10167])
def test_a_key_whose_write_was_refused_is_purged(number: int) -> None:
    """The stream still serves reads, which must not find the old value."""
    for ending, announced in ((ack(9), True), (refusal(number), False)):
        with pytest.raises(NotServed) as caught:
            finish(opened().put(":1:k", WRITE), refusal(number), [PURGED], [ending])
        assert ("readable in the near caches of other" not in str(caught.value)) is announced


def test_a_write_that_was_not_permitted_names_its_key_and_purges_it() -> None:
    with pytest.raises(PermissionDenied, match=UNANNOUNCED) as caught:
        finish(opened().put(":1:k", WRITE), denied(), [PURGED], [denied()])
    assert str(caught.value).startswith("':1:k' was not stored: No permission")
    assert "deleted either" not in str(caught.value)


@pytest.mark.parametrize("ending", [[ack(9)], [denied()], [refusal(10167)]], ids=str)
def test_a_key_is_purged_whose_tombstone_is_not_permitted(ending: list[Any]) -> None:
    """A purge that cannot be announced is an error, except of what returns the value."""
    read, announced = stored(7), ending == [ack(9)]
    popped, asked = finish(opened().pop(":1:k"), read, denied(), [PURGED], ending)
    assert popped.revision == 7
    assert asked[2][0].payload == b'{"filter":"$KV.b.=.1.k","seq":8}'
    deleting = opened().delete(":1:k"), [read, denied(), [PURGED], ending]
    failed, _ = finish(opened().delete_many([":1:k"]), [denied()], [PURGED], ending)
    if announced:
        assert finish(deleting[0], *deleting[1])[0] is True
        assert failed == {}
    else:
        with pytest.raises(
            (PermissionDenied, NotServed), match=f"^':1:k' was deleted[.] {UNANNOUNCED}"
        ):
            finish(deleting[0], *deleting[1])
        assert list(failed) == [":1:k"]


def test_a_key_that_can_neither_be_deleted_nor_purged_is_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full, "_QUIET_S", 3600.0)
    bucket = opened()
    for steps in (bucket.delete, bucket.pop):
        with pytest.raises(PermissionDenied, match=r"^':1:k' was not deleted, and may still be"):
            finish(steps(":1:k"), stored(7), denied(), [denied()])
    failed, _ = finish(bucket.delete_many([":1:k"]), [denied()], [denied()])
    assert "':1:k' was not deleted, and may still be" in str(failed[":1:k"])
    assert len([each for each in caplog.messages if "may still be readable" in each]) == 1


def test_a_value_is_not_discarded_while_the_stream_is_not_served() -> None:
    with pytest.raises(NotServed):
        finish(opened().put(":1:k", WRITE), NO_RESPONDERS, refusal(OFF))


def test_a_conditional_write_is_repeated_until_the_server_knows_the_sequence() -> None:
    sequence, _ = finish(opened().add(":1:k", WRITE), refusal(10163), ack(8))
    assert sequence == 8


@pytest.mark.parametrize(
    ("words", "evict"),
    [
        ("maximum messages exceeded", True),
        ("maximum bytes exceeded", True),
        ("maximum messages per subject exceeded", False),
        ("no space left on device", False),
    ],
)
def test_only_a_full_bucket_is_told_to_evict(words: str, evict: bool) -> None:
    bucket = Bucket(BucketConfig("b", max_bytes=10**6, evict=False), Session())
    finish(bucket.stream.opening.ready(), stream_info(bucket.config))
    error = {"code": 503, "err_code": 10077, "description": words}
    full = document({"error": error, "stream": "KV_b", "seq": 0})
    with pytest.raises(BucketFull) as caught:
        finish(bucket.put(":1:k", WRITE), full, [document({"purged": 0})])
    assert ("EVICT" in str(caught.value)) is evict


def test_a_write_in_doubt_that_is_then_not_permitted_stays_in_doubt() -> None:
    refused = denied()
    with pytest.raises(OutcomeUnknown) as caught:
        finish(opened().add(":1:k", WRITE), OutcomeUnknown(), refused)
    assert caught.value.__cause__ is refused


def test_a_clear_whose_announcement_is_not_permitted_is_not_repeated() -> None:
    with pytest.raises(PermissionDenied):
        finish(opened().clear(), PURGED, denied())


# Counters ------------------------------------------------------------------------------------


def test_an_increment_waits_while_the_stream_is_not_served_and_was_not_applied(
    clock: Clock,
) -> None:
    stream = counting.opened()
    too_few_servers = counting.refusal(10005, 503)
    began = clock.now
    error, asked = run_until_error(clock, stream.incr("k", 1), too_few_servers)
    assert isinstance(error, CounterUnavailable)
    assert error.may_have_happened is False
    assert len(asked) > 1
    assert clock.now - began >= stream.config.deadline


@pytest.mark.parametrize("number", [OFF, 10076, 10120, OFFLINE, 10195])
def test_an_increment_does_not_wait_for_what_is_switched_off(clock: Clock, number: int) -> None:
    stream = counting.opened()
    began = clock.now
    error, asked = run_until_error(clock, stream.incr("k", 1), counting.refusal(number, 503))
    assert isinstance(error, NotServed)
    assert (error.err_code, len(asked), clock.now) == (number, 1, began)
    assert "The counter k of the stream C was not changed" in str(error)


def test_an_increment_in_doubt_stays_in_doubt_if_the_stream_is_switched_off(clock: Clock) -> None:
    answers = [OutcomeUnknown(), counting.refusal(OFF, 503)]
    error, _ = run_until_error(clock, counting.opened().incr("k", 1), *answers)
    assert isinstance(error, CounterUnavailable)
    assert error.may_have_happened is True


@pytest.mark.parametrize("error", [counting.refusal(10027), PermissionDenied("No.")], ids=str)
def test_an_increment_does_not_wait_for_what_somebody_must_change(
    clock: Clock, error: object
) -> None:
    caught, asked = run_until_error(clock, counting.opened().incr("k", 1), error)
    assert isinstance(caught, (LimitReached, PermissionDenied))
    assert isinstance(caught, NatsError)
    assert len(asked) == 1


def test_a_missing_permission_to_read_a_counter_is_named() -> None:
    with pytest.raises(PermissionDenied):
        finish(counting.opened().value("k"), PermissionDenied("No permission to publish to x"))


def test_a_counter_that_may_not_be_changed_does_not_begin_an_outage(clock: Clock) -> None:
    stream = counting.opened()
    run_until_error(clock, stream.incr("secret", 1), PermissionDenied("No."))
    clock.now += stream.config.deadline - 1
    began = clock.now
    run_until_error(clock, stream.incr("k", 1), counting.refusal(10005, 503))
    assert clock.now - began >= stream.config.deadline
