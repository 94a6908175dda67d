"""Calendar periods in time zones whose clocks change in all kinds of ways."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_nats.limits.periods import SECONDS, Period, period_at

UTC = timezone.utc
BERLIN = ZoneInfo("Europe/Berlin")
HOUR, DAY = 3600, 86_400
EARLIEST, LATEST = 0, int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())

kinds = st.sampled_from(sorted(SECONDS))
zones = st.sampled_from(sorted(available_timezones())).map(ZoneInfo)
moments = st.integers(EARLIEST, LATEST) | st.floats(EARLIEST, LATEST)


def moment(text: str, tz: tzinfo = UTC, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=tz, fold=fold).timestamp()


def shown(period: Period, tz: tzinfo) -> tuple[str, str]:
    """Return what clocks show when a period begins and when it ends."""
    begun, ended = (
        datetime.fromtimestamp(each, tz).strftime("%Y-%m-%d %H:%M %z")
        for each in (period.start, period.end)
    )
    return begun, ended


# Laws ----------------------------------------------------------------------------------------


@given(moments, kinds, zones)
@example(moment("2026-11-01 05:30"), "day", ZoneInfo("America/Havana"))
@example(moment("2006-10-29 02:45"), "day", ZoneInfo("America/St_Johns"))
@example(moment("2011-12-30 10:00"), "day", ZoneInfo("Pacific/Apia"))
@example(moment("2026-04-04 15:10"), "hour", ZoneInfo("Australia/Lord_Howe"))
def test_every_moment_is_in_its_period(seconds: float, per: str, tz: tzinfo) -> None:
    period = period_at(seconds, per, tz)
    assert period.start <= seconds < period.end


@given(moments, kinds, zones, st.floats(0, 1, exclude_max=True))
def test_all_moments_of_a_period_have_the_same_one(
    seconds: float, per: str, tz: tzinfo, part: float
) -> None:
    period = period_at(seconds, per, tz)
    inside = period.start + part * (period.end - period.start)
    for each in (period.start, period.end - 1, min(inside, period.end - 0.001)):
        assert period_at(each, per, tz) == period


@given(moments, kinds, zones)
def test_the_next_period_begins_where_one_ends(seconds: float, per: str, tz: tzinfo) -> None:
    period = period_at(seconds, per, tz)
    assert period_at(period.end, per, tz).start == period.end


@given(moments, kinds, zones)
@example(moment("2026-10-25 00:00"), "hour", BERLIN)
@example(moment("2026-04-04 14:00"), "hour", ZoneInfo("Australia/Lord_Howe"))
def test_the_ids_of_periods_in_a_row_differ(seconds: float, per: str, tz: tzinfo) -> None:
    ids = set()
    for _ in range(5):
        period = period_at(seconds, per, tz)
        ids.add(period.id)
        seconds = period.end
    assert len(ids) == 5


@given(st.lists(moments, min_size=2, max_size=2), kinds, zones)
def test_two_periods_have_the_same_id_only_if_they_are_the_same(
    both: list[float], per: str, tz: tzinfo
) -> None:
    one, other = (period_at(each, per, tz) for each in both)
    assert (one.id == other.id) == (one == other)


@given(moments, kinds, zones)
def test_an_id_is_safe_in_a_subject(seconds: float, per: str, tz: tzinfo) -> None:
    period = period_at(seconds, per, tz)
    assert period.id.replace("-", "").isalnum()
    assert period.id.isascii()
    assert len(period.id) <= 18


@given(moments, kinds, zones)
def test_a_period_is_not_longer_than_its_kind(seconds: float, per: str, tz: tzinfo) -> None:
    period = period_at(seconds, per, tz)
    # Clocks are put back by three hours at most, once in a period.
    extra = 0 if per == "hour" else 3 * HOUR
    assert 0 < period.end - period.start <= SECONDS[per] + extra


# The calendar --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("per", "id", "begun", "ended"),
    [
        ("hour", "2026-06-10T120000Z", "2026-06-10 14:00", "2026-06-10 15:00"),
        ("day", "2026-06-10", "2026-06-10 00:00", "2026-06-11 00:00"),
        ("week", "2026-W24", "2026-06-08 00:00", "2026-06-15 00:00"),
        ("month", "2026-06", "2026-06-01 00:00", "2026-07-01 00:00"),
        ("year", "2026", "2026-01-01 00:00", "2027-01-01 00:00"),
    ],
)
def test_periods_follow_the_calendar_of_the_time_zone(
    per: str, id: str, begun: str, ended: str
) -> None:
    period = period_at(moment("2026-06-10 14:30", BERLIN), per, BERLIN)
    assert period == (id, moment(begun, BERLIN), moment(ended, BERLIN))


def test_a_week_is_named_by_the_year_that_has_most_of_it() -> None:
    assert period_at(moment("2027-01-02 12:00"), "week", UTC).id == "2026-W53"
    assert period_at(moment("2024-12-30 00:00"), "week", UTC).id == "2025-W01"


def test_months_have_their_lengths() -> None:
    lengths = {
        month: period_at(moment(f"2028-{month:02}-01 00:00"), "month", UTC) for month in (2, 4, 12)
    }
    days = {month: (each.end - each.start) // DAY for month, each in lengths.items()}
    assert days == {2: 29, 4: 30, 12: 31}


def test_fixed_offsets_are_time_zones_too() -> None:
    tz = timezone(timedelta(hours=5, minutes=45))
    assert period_at(moment("2026-06-10 18:15"), "day", tz).start == moment("2026-06-10 18:15")
    assert period_at(moment("2026-06-10 18:14"), "day", tz).id == "2026-06-10"
    assert period_at(moment("2026-06-10 18:15"), "hour", tz).id == "2026-06-10T181500Z"


# Changes of the clock ------------------------------------------------------------------------


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_a_day_on_which_clocks_change_has_23_or_25_hours(day: str, hours: int) -> None:
    period = period_at(moment(f"{day} 12:00", BERLIN), "day", BERLIN)
    assert period.end - period.start == hours * HOUR
    assert len({period_at(each, "hour", BERLIN).id for each in range(*period[1:], 60)}) == hours


def test_the_hour_that_clocks_repeat_is_two_hours() -> None:
    first = period_at(moment("2026-10-25 02:30", BERLIN), "hour", BERLIN)
    second = period_at(moment("2026-10-25 02:30", BERLIN, fold=1), "hour", BERLIN)
    assert first.end == second.start
    assert first.end - first.start == second.end - second.start == HOUR
    assert first.id != second.id


def test_a_change_by_half_an_hour_makes_an_hour_of_30_minutes() -> None:
    tz = ZoneInfo("Australia/Lord_Howe")
    put_back = period_at(moment("2026-04-05 01:45", tz, fold=1), "hour", tz)
    assert shown(put_back, tz) == ("2026-04-05 01:30 +1030", "2026-04-05 02:00 +1030")
    before = period_at(put_back.start - 1, "hour", tz)
    assert shown(before, tz) == ("2026-04-05 01:00 +1100", "2026-04-05 01:30 +1030")
    assert before.end - before.start == HOUR
    put_forward = period_at(moment("2026-10-04 02:45", tz), "hour", tz)
    assert shown(put_forward, tz) == ("2026-10-04 02:30 +1100", "2026-10-04 03:00 +1100")


def test_an_hour_ends_when_clocks_change_in_the_middle_of_it() -> None:
    tz = ZoneInfo("Asia/Pyongyang")  # from 23:30 to midnight
    period = period_at(moment("2018-05-04 23:10", tz), "hour", tz)
    assert shown(period, tz) == ("2018-05-04 23:00 +0830", "2018-05-05 00:00 +0900")
    assert period.end - period.start == HOUR // 2


def test_a_day_without_a_midnight_begins_with_its_first_moment() -> None:
    tz = ZoneInfo("America/Sao_Paulo")
    period = period_at(moment("2018-11-04 12:00", tz), "day", tz)
    assert shown(period, tz) == ("2018-11-04 01:00 -0200", "2018-11-05 00:00 -0200")


def test_a_midnight_within_the_skipped_time_is_found_to_the_second() -> None:
    tz = ZoneInfo("America/Toronto")  # from 23:30 to 00:30, in 1919
    period = period_at(moment("1919-03-31 12:00", tz), "day", tz)
    assert shown(period, tz) == ("1919-03-31 00:30 -0400", "1919-04-01 00:00 -0400")


def test_a_day_whose_midnight_is_repeated_begins_at_the_first() -> None:
    tz = ZoneInfo("America/Havana")
    period = period_at(moment("2026-11-01 00:30", tz, fold=1), "day", tz)
    assert shown(period, tz) == ("2026-11-01 00:00 -0400", "2026-11-02 00:00 -0500")
    assert period.end - period.start == 25 * HOUR


def test_a_date_that_begins_twice_is_one_day_and_does_not_end_in_between() -> None:
    tz = ZoneInfo("America/St_Johns")  # from 00:01 to 23:01 of the day before
    begins = moment("2006-10-29 00:00", tz)
    again = moment("2006-10-28 23:30", tz, fold=1)
    assert again > begins
    period = period_at(begins, "day", tz)
    assert period_at(again, "day", tz) == period
    assert shown(period, tz) == ("2006-10-29 00:00 -0230", "2006-10-30 00:00 -0330")


def test_a_date_that_was_skipped_has_no_period() -> None:
    tz = ZoneInfo("Pacific/Apia")  # there was no December 30
    before = period_at(moment("2011-12-29 12:00", tz), "day", tz)
    after = period_at(before.end, "day", tz)
    assert (before.id, after.id) == ("2011-12-29", "2011-12-31")
    assert before.end - before.start == DAY
