from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.market.time import (
    DAY_US,
    MINUTE_US,
    InvalidTimeError,
    day_of,
    day_start_us,
    from_datetime,
    minute_start_us,
    parse_iso,
    to_datetime,
    to_iso,
)

moments = st.datetimes(
    min_value=datetime(1970, 1, 1), max_value=datetime(2199, 12, 31), timezones=st.just(UTC)
)


@given(moments)
def test_times_survive_being_written_and_read(moment: datetime) -> None:
    us = from_datetime(moment)
    assert to_datetime(us) == moment
    assert parse_iso(to_iso(us)) == us
    assert parse_iso(moment.isoformat()) == us


@given(moments, st.integers(0, 9), st.integers(0, 999_999_999))
def test_digits_past_the_sixth_are_cut_off(moment: datetime, digits: int, fraction: int) -> None:
    whole = moment.replace(microsecond=0)
    text = f"{fraction:09d}"[:digits]
    dot = "." if text else ""
    expected = from_datetime(whole) + int(f"{text:0<6}"[:6])
    assert parse_iso(f"{whole:%Y-%m-%dT%H:%M:%S}{dot}{text}Z") == expected


@given(moments, st.integers(-14 * 60, 14 * 60))
def test_offsets_are_taken_off(moment: datetime, minutes: int) -> None:
    elsewhere = moment.astimezone(timezone(timedelta(minutes=minutes)))
    assert parse_iso(elsewhere.isoformat()) == from_datetime(moment)


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    with pytest.raises(InvalidTimeError):
        parse_iso(text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-20T10:00:00",  # no offset
        "2026-11-20",
        "2026-13-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-11-20T24:00:00Z",
        "2026-11-20T10:60:00Z",
        "2026-11-20T10:00:60Z",
        "2026-11-20T10:00:60.000000Z",
        "2026-11-20T10:00:00.12345٣Z",
        "2026-11-20T10:00:00.12345 Z",
        "2026-11-20T10:00:00.-12345Z",
        "٢٠٢٦-11-20T10:00:00.123456Z",
        "2026-11-20T10:00:00.123456z",
        "0000-00-00T00:00:00.000000Z",
        " 2026-11-20T10:00:00.123456Z",
        "",
    ],
)
def test_incomplete_or_impossible_times_are_refused(text: str) -> None:
    for _ in range(2):  # the second time a second may be remembered
        with pytest.raises(InvalidTimeError):
            parse_iso(text)


@given(moments)
def test_days_and_minutes_contain_their_times(moment: datetime) -> None:
    us = from_datetime(moment)
    assert day_of(us) == moment.date()
    assert 0 <= us - day_start_us(day_of(us)) < DAY_US
    assert minute_start_us(us) % MINUTE_US == 0
    assert 0 <= us - minute_start_us(us) < MINUTE_US


def test_the_first_day_starts_at_zero() -> None:
    assert day_start_us(date(1970, 1, 1)) == 0
