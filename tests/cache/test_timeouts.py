"""Timeouts: exact to the millisecond, by the server's clock rather than the client's."""

from __future__ import annotations

import ast
import math
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from datetime import timezone as fixed
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.utils import timezone

from django_nats.cache import NatsCache
from django_nats.client.streams import clock
from django_nats.devserver import NatsServer
from tests.cache.conftest import Left, MakeTwin, advance, stored, stream_state
from tests.support.process import run_in_processes

pytestmark = pytest.mark.smoke

CENTURY_S = 100 * 365 * 86400


SetClock = Callable[[float], None]


@pytest.fixture
def set_clock(twin: Any, monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Stop the cache's estimate of the server's clock at a time in seconds since 1970."""

    def to(moment: float) -> None:
        monkeypatch.setattr(clock, "monotonic", lambda: 0.0)
        twin.plain.bucket.clock.offset = moment

    return to


def eventually(happened: Callable[[], bool], seconds: float = 60) -> float:
    """Wait until ``happened()`` is true. Return the seconds waited; fail after ``seconds``."""
    begun = time.monotonic()
    while not happened():
        assert time.monotonic() < begun + seconds, "it did not happen"
    return time.monotonic() - begun


def learn_the_time(twin: Any) -> None:
    """Make the cache estimate the server's clock until the estimate is right.

    The server's clock is this machine's. An estimate is wrong if the machine stalled between
    request and reply.
    """
    bucket = twin.plain.bucket

    def is_right() -> bool:
        bucket.clock.due = 0
        twin.get("warm-up")
        return bool(abs(bucket.clock.offset - (time.time() - time.monotonic())) < 0.005)

    eventually(is_right)


class TestExpiry:
    @pytest.mark.parametrize("timeout", [0.25, 1, 1.1])
    def test_a_value_expires_after_its_timeout_in_real_time(
        self, twin: Any, timeout: float
    ) -> None:
        learn_the_time(twin)
        begun = time.monotonic()
        twin.set("key", 1, timeout)
        stored_by = time.monotonic()
        asked = latest = stored_by
        while twin.get("key") == 1:
            latest, asked = asked, time.monotonic()
        # 10 ms for the estimate of the server's clock. The server's own TTL, of whole seconds,
        # would be later.
        assert time.monotonic() - begun > timeout - 0.01
        assert latest - stored_by < timeout + 0.02

    @pytest.mark.parametrize("timeout", [0.001, 59.25, 59.9995, 60, 86400])
    def test_a_value_expires_to_the_millisecond(
        self, twin: Any, set_clock: SetClock, timeout: float
    ) -> None:
        twin.set("key", 1, 1000)
        before = time.time() - 0.01  # for the estimate of the server's clock
        twin.set("key", 1, timeout)
        after = time.time() + 0.01
        entry = stored(twin, "key")
        # A timeout of a millisecond has passed by now: only the expiry can be tested.
        if timeout > 1:
            assert entry is not None
            assert before < entry.expires - timeout < after
            set_clock(entry.expires - 0.01)
            assert twin.get("key") == 1
            assert twin.get_many(["key"]) == {"key": 1}
            set_clock(entry.expires + 0.01)
        else:
            eventually(lambda: twin.get("key") is None)
        assert twin.get("key") is None
        assert twin.get_many(["key"]) == {}
        assert twin.has_key("key") is False
        assert twin.ttl("key") == 0
        assert twin.touch("key", 100) is False
        assert twin.persist("key") is False
        assert twin.get_with_revision("key") == (None, 0)

    def test_the_server_removes_expired_values(self, twin: Any) -> None:
        twin.set("stays", 1, 100)
        twin.set("goes", 1, 0.5)
        assert stream_state(twin)["last_seq"] == 2
        eventually(lambda: stream_state(twin)["messages"] == 1)
        assert next(iter(stream_state(twin)["subjects"])).endswith("stays")

    def test_a_replaced_value_does_not_expire_with_the_old_one(self, twin: Any) -> None:
        twin.set("key", 1, 10)
        twin.set("key", 2, 1000)
        advance(twin, 500)
        assert twin.get("key") == 2

    @pytest.mark.parametrize(
        "timeout", [0, -1, -0.001, 0.0, pytest.param(-(10**400), id="-1e400"), -math.inf]
    )
    def test_a_timeout_of_zero_or_less_stores_no_value(self, twin: Any, timeout: float) -> None:
        def full() -> None:
            twin.set_many({"a": 1, "b": 2}, 100)

        full()
        assert twin.set("a", 3, timeout) is None
        assert twin.get_many("ab") == {"b": 2}
        assert twin.add("a", 3, timeout) is True
        assert twin.add("b", 3, timeout) is False
        assert twin.get_many("ab") == {"b": 2}
        assert twin.set_many({"a": 3, "b": 3}, timeout) == []
        assert twin.get_many("ab") == {}
        full()
        for change in (twin.touch, twin.expire, twin.pexpire):
            assert change("a", timeout) is True
            assert change("a", timeout) is False
            assert twin.get("a") is None
            full()

    def test_values_with_timeout_none_never_expire(self, make_twin: MakeTwin) -> None:
        twin = make_twin(TIMEOUT=10)
        twin.set("set", 1, None)
        twin.set_many({"set_many": 1}, None)
        twin.add("add", 1, None)
        twin.get_or_set("get_or_set", 1, None)
        twin.set("touch", 1)
        assert twin.touch("touch", None) is True
        keys = ["set", "set_many", "add", "get_or_set", "touch"]
        assert [twin.ttl(key) for key in keys] == [None] * 5
        advance(twin, 200 * 365 * 86400)
        assert len(twin.get_many(keys)) == 5

    @pytest.mark.parametrize(
        ("configured", "ttl"), [(60, 60), (79.9, 80), ("60", 60), (None, None), (10**30, CENTURY_S)]
    )
    def test_every_write_uses_the_default_timeout(
        self, make_twin: MakeTwin, configured: Any, ttl: Any
    ) -> None:
        twin = make_twin(TIMEOUT=configured)
        twin.set("set", 1)
        twin.add("add", 1)
        twin.set_many({"set_many": 1})
        twin.get_or_set("get_or_set", 1)
        twin.update("update", lambda _: 1)
        twin.set("touch", 1, 700)
        twin.touch("touch")
        keys = ["set", "add", "set_many", "get_or_set", "update", "touch"]
        assert [twin.ttl(key) for key in keys] == [ttl and Left(ttl)] * 6
        if configured == 79.9:
            assert 0 < twin.pttl("touch") <= 79_900

    def test_the_default_timeout_is_300_seconds_without_settings(self, twin: Any) -> None:
        twin.set("key", 1)
        assert twin.ttl("key") == Left(300)


class TestAbsurdTimeouts:
    @pytest.mark.parametrize(
        "timeout", [10**10, 10**30, pytest.param(10**400, id="1e400"), 1e300, math.inf]
    )
    def test_timeouts_are_limited_to_a_century(self, twin: Any, timeout: float) -> None:
        twin.set("key", 1, timeout)
        assert twin.get("key") == 1
        assert twin.ttl("key") == Left(CENTURY_S)
        for change in (twin.touch, twin.expire):
            assert change("key", timeout) is True
        assert twin.incr("key") == 2
        assert twin.ttl("key") == Left(CENTURY_S)
        twin.pexpire("key", timeout * 1000)
        assert twin.ttl("key") == Left(CENTURY_S)

    @pytest.mark.parametrize(
        "timeout", ["soon", "", "30", "7.5", b"30", math.nan, timedelta(seconds=5), [], b"x", 1j]
    )
    def test_a_timeout_that_is_not_a_number_raises_type_error_and_changes_nothing(
        self, twin: Any, timeout: Any
    ) -> None:
        twin.set("key", 1, 100)
        operations: list[Callable[[], object]] = [
            lambda: twin.set("key", 2, timeout),
            lambda: twin.set_many({"key": 2}, timeout),
            lambda: twin.add("new", 2, timeout),
            lambda: twin.touch("key", timeout),
            lambda: twin.update("key", lambda _: 2, timeout=timeout),
        ]
        if not isinstance(timeout, timedelta):  # which these two accept
            operations.append(lambda: twin.expire("key", timeout))
            operations.append(lambda: twin.pexpire("key", timeout))
        for operation in operations:
            with pytest.raises(TypeError):
                operation()
        assert twin.get_many(["key", "new"]) == {"key": 1}
        assert twin.ttl("key") == Left(100)

    def test_the_error_shows_the_given_timeout(self, twin: Any) -> None:
        with pytest.raises(TypeError, match="a number of seconds, not 'soon'"):
            twin.set("key", 1, "soon")

    @pytest.mark.parametrize("name", ["exp", "ex", "px", "expire", "ttl", "timout"])
    def test_an_argument_that_set_does_not_have_is_refused_with_the_name_of_the_timeout(
        self, twin: Any, name: str
    ) -> None:
        twin.set("key", 1)
        with pytest.raises(TypeError, match=f"no argument '{name}'. The timeout, .* 'timeout'"):
            twin.set("key", 2, **{name: 3})
        assert twin.get("key") == 1

    def test_a_time_of_expiry_as_text_is_refused(self, twin: Any) -> None:
        twin.set("key", 1, 100)
        for change in (twin.expire_at, twin.pexpire_at):
            with pytest.raises(TypeError):
                change("key", "99999999999")
        assert twin.ttl("key") == Left(100)

    @pytest.mark.parametrize("timeout", [Decimal("7.5"), Fraction(15, 2), 7.5])
    def test_any_kind_of_number_is_accepted(self, twin: Any, timeout: Any) -> None:
        twin.set("key", 1, timeout)
        assert 0 < twin.pttl("key") <= 7500


class TestReadingTimeouts:
    def test_ttl_in_seconds_and_pttl_in_milliseconds_are_rounded_up(
        self, twin: Any, set_clock: SetClock
    ) -> None:
        twin.set("key", 1, 100)
        assert twin.ttl("key") == Left(100)
        assert 90_000 < twin.pttl("key") <= 100_000
        expires = stored(twin, "key").expires
        for left, seconds, milliseconds in [
            (1.9004, 2, 1_901),
            (1.0004, 2, 1_001),
            (0.9004, 1, 901),
            (0.0004, 1, 1),
            (-0.0004, 0, 0),
        ]:
            set_clock(expires - left)
            assert (twin.ttl("key"), twin.pttl("key")) == (seconds, milliseconds)

    def test_the_estimate_of_the_servers_clock_is_renewed(self, twin: Any) -> None:
        twin.set("key", 1, 1000)
        advance(twin, 500)
        assert twin.ttl("key") <= 530
        twin.plain.bucket.clock.due = 0  # a minute later
        twin.get("key")
        assert twin.ttl("key") > 900

    def test_ttl_and_pttl_never_exceed_the_timeout_that_was_set(self, twin: Any) -> None:
        advance(twin, -0.5)  # a late estimate of the server's clock, which the next reply corrects
        twin.set("key", 1, 100)
        assert (twin.ttl("key"), twin.pttl("key") <= 100_000) == (Left(100), True)

    def test_ttl_and_pttl_of_a_missing_key_are_zero(self, twin: Any) -> None:
        assert (twin.ttl("key"), twin.pttl("key")) == (0, 0)

    def test_ttl_and_pttl_without_a_timeout_are_none(self, twin: Any) -> None:
        twin.set("key", 1, None)
        assert (twin.ttl("key"), twin.pttl("key")) == (None, None)

    def test_ttl_and_pttl_use_the_given_version(self, twin: Any) -> None:
        twin.set("key", 1, 100, version=2)
        assert (twin.ttl("key"), twin.ttl("key", version=2)) == (0, Left(100))
        assert 0 == twin.pttl("key") < twin.pttl("key", version=2)


class TestChangingTimeouts:
    @pytest.mark.parametrize("name", ["touch", "expire"])
    def test_touch_and_expire_take_seconds(self, twin: Any, name: str) -> None:
        twin.set("key", [1], 1000)
        assert getattr(twin, name)("key", 100) is True
        assert twin.ttl("key") == Left(100)
        assert twin.get("key") == [1]
        assert getattr(twin, name)("key", 79.9) is True
        assert 0 < twin.pttl("key") <= 79_900
        assert getattr(twin, name)("absent", 100) is False
        assert twin.has_key("absent") is False

    def test_pexpire_takes_milliseconds(self, twin: Any) -> None:
        twin.set("key", 1, 1000)
        assert twin.pexpire("key", 100_500) is True
        assert 40_000 < twin.pttl("key") <= 100_500
        assert twin.pexpire("absent", 1000) is False

    @pytest.mark.parametrize("name", ["touch", "expire", "pexpire"])
    def test_timeouts_can_be_removed_or_set_to_the_default(
        self, make_twin: MakeTwin, name: str
    ) -> None:
        twin = make_twin(TIMEOUT=70)
        twin.set("key", 1, 1000)
        assert getattr(twin, name)("key", None) is True
        assert twin.ttl("key") is None
        assert getattr(twin, name)("key", DEFAULT_TIMEOUT) is True
        assert twin.ttl("key") == Left(70)
        assert getattr(twin, name)("absent", None) is False

    @pytest.mark.parametrize(
        "moment",
        [
            pytest.param(lambda: time.time() + 100, id="timestamp"),
            pytest.param(lambda: datetime.now(fixed.utc) + timedelta(seconds=100), id="aware, UTC"),
            pytest.param(
                lambda: datetime.now(fixed(timedelta(hours=-11))) + timedelta(seconds=100),
                id="aware, elsewhere",
            ),
        ],
    )
    def test_expire_at_takes_a_timestamp_or_datetime(
        self, twin: Any, moment: Callable[[], Any]
    ) -> None:
        twin.set("key", 1, 1000)
        assert twin.expire_at("key", moment()) is True
        assert twin.ttl("key") == Left(130)  # the server's clock is estimated, on a busy machine
        assert twin.expire_at("absent", moment()) is False

    @pytest.mark.parametrize("name", ["expire", "pexpire"])
    def test_expire_and_pexpire_take_a_timedelta(self, twin: Any, name: str) -> None:
        twin.set("key", 1, 1000)
        assert getattr(twin, name)("key", timedelta(minutes=1, milliseconds=500)) is True
        assert 0 < twin.pttl("key") <= 60_500
        assert getattr(twin, name)("key", timedelta(0)) is True
        assert twin.has_key("key") is False

    @pytest.mark.parametrize(
        "moment",
        [
            pytest.param(lambda: int(time.time() * 1000) + 100_500, id="milliseconds"),
            pytest.param(lambda: time.time() * 1000 + 100_500, id="with a fraction"),
            pytest.param(lambda: datetime.now(fixed.utc) + timedelta(seconds=100.5), id="datetime"),
        ],
    )
    def test_pexpire_at_takes_a_timestamp_in_milliseconds_or_datetime(
        self, twin: Any, moment: Callable[[], Any]
    ) -> None:
        twin.set("key", 1, 1000)
        assert twin.pexpire_at("key", moment()) is True
        assert 40_000 < twin.pttl("key") <= 130_500
        assert twin.pexpire_at("absent", moment()) is False
        assert twin.pexpire_at("key", 10**400) is True
        assert twin.ttl("key") > 10**9
        assert twin.pexpire_at("key", time.time() * 1000 - 60_000) is True
        assert twin.has_key("key") is False

    @pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Lima"])
    def test_a_naive_datetime_is_in_the_current_time_zone(self, twin: Any, zone: str) -> None:
        twin.set("key", 1, 1000)
        moment = datetime.now(ZoneInfo(zone)).replace(tzinfo=None) + timedelta(seconds=100)
        with timezone.override(zone):
            assert twin.expire_at("key", moment) is True
        assert twin.ttl("key") == Left(130)

    def test_expire_at_a_past_time_deletes_the_key(self, twin: Any) -> None:
        twin.set("key", 1, 1000)
        assert twin.expire_at("key", time.time() - 60) is True
        assert twin.has_key("key") is False

    def test_persist_returns_whether_it_removed_a_timeout(self, twin: Any) -> None:
        twin.set("key", "value", 1000)
        assert twin.persist("key") is True
        assert twin.ttl("key") is None
        assert twin.persist("key") is False
        assert twin.persist("absent") is False
        assert twin.get("key") == "value"

    def test_changing_a_timeout_uses_the_given_version(self, twin: Any) -> None:
        twin.set("key", 1, 1000)
        twin.set("key", 2, 1000, version=2)
        twin.touch("key", 200, version=2)
        assert (twin.ttl("key"), twin.ttl("key", version=2)) == (Left(1000), Left(200))
        twin.expire("key", 300, version=2)
        twin.persist("key", version=2)
        assert (twin.ttl("key"), twin.ttl("key", version=2)) == (Left(1000), None)
        twin.pexpire("key", 400_000, version=2)
        assert twin.ttl("key", version=2) == Left(400)
        twin.expire_at("key", time.time() + 500, version=2)
        assert (twin.ttl("key"), twin.ttl("key", version=2)) == (Left(1000), Left(530))

    def test_incr_works_after_touch(self, twin: Any) -> None:
        twin.set("n", 1, 1000)
        before = stored(twin, "n")
        assert before is not None
        twin.touch("n", 100)
        assert twin.incr("n") == 2


# Patched before anything is imported, so that all Python code reads the wrong time.
WRONG_CLOCK = """
import time
right = time.time
time.time = lambda: right() + {hours} * 3600
"""


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_client_whose_clock_is_an_hour_wrong_reads_the_right_timeouts(
    server: NatsServer, cache: NatsCache, hours: int
) -> None:
    cache.set("theirs", "value", 100)
    cache.set("short", "value", 0.4)
    code = """
assert abs(right() - time.time()) > 3000
cache.set("ours", "value", 100)
added = cache.add("theirs", 1), cache.add("new", 1, 50), cache.add("new", 1)
print([cache.get("theirs"), cache.ttl("theirs"), cache.ttl("ours"), cache.ttl("new"), *added])
while cache.has_key("short"):  # by its own clock, this would end at once or after an hour
    pass
"""
    (output,) = run_in_processes(server, cache, code, before=WRONG_CLOCK.format(hours=hours))
    theirs, theirs_left, ours_left, new_left, *added = ast.literal_eval(output)
    assert (theirs, added) == ("value", [False, True, False])
    assert [theirs_left, ours_left, new_left] == [Left(100), Left(100), Left(50)]
    assert cache.get("ours") == "value"
    left = [cache.ttl(key) for key in ("ours", "theirs", "new")]
    assert left == [Left(100), Left(100), Left(50)]
