"""Time: int64 microseconds since 1970 in UTC, and days and minutes of it."""

import re
import time
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

EARLIEST_US = int(datetime(2009, 1, 3, tzinfo=UTC).timestamp()) * SECOND_US
"""Bitcoin's first block: no market event is older."""

_EPOCH_DAY = date(1970, 1, 1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,18}))?(?:(Z)|([+-])(\d\d):?(\d\d))", re.ASCII
)


class InvalidTimeError(ValueError):
    """Text that is not a complete ISO 8601 time with an offset."""


def now_us() -> int:
    """Return this machine's clock."""
    return time.time_ns() // 1000


def parse_iso(text: str) -> int:
    """Return the microseconds of an ISO 8601 time; digits past the sixth decimal are cut off.

    Raises:
        InvalidTimeError: no such time, or a time without an offset.

    >>> parse_iso("2026-11-20T10:00:00.1234567Z") % 1_000_000
    123456
    """
    if len(text) == 27 and text[26] == "Z" and text[19] == ".":  # the usual form: only its end is new
        second = _second_us(text[:19])
        micros = text[20:26]
        if micros.isdigit() and micros.isascii():
            return second + int(micros)
    return _parse_any_iso(text)


@lru_cache(maxsize=1024)
def _second_us(text: str) -> int:
    """Return the microseconds of a time without its fraction; thousands of trades share a second."""
    return _parse_any_iso(text + "Z")


def _parse_any_iso(text: str) -> int:
    match = _ISO.fullmatch(text)
    if match is None:
        raise InvalidTimeError(f"{text[:40]!r} is not an ISO 8601 time with an offset")
    year, month, day, hour, minute, second, fraction, _, sign, offset_hours, offset_minutes = match.groups()
    try:
        days = date(int(year), int(month), int(day)).toordinal() - _EPOCH_DAY.toordinal()
    except ValueError:
        raise InvalidTimeError(f"{text[:40]!r} is not a day of the calendar") from None
    h, m, s = int(hour), int(minute), int(second)
    if h > 23 or m > 59 or s > 59:
        raise InvalidTimeError(f"{text[:40]!r} is not a time of day")
    micros = int((fraction + "000000")[:6]) if fraction else 0
    total = days * DAY_US + ((h * 60 + m) * 60 + s) * SECOND_US + micros
    if sign:
        offset = (int(offset_hours) * 60 + int(offset_minutes)) * MINUTE_US
        total += -offset if sign == "+" else offset
    return total


def to_iso(us: int) -> str:
    """Return a time as exchanges write it: `2026-11-20T10:00:00.123456Z`."""
    return to_datetime(us).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def to_datetime(us: int) -> datetime:
    """Return a time as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=us)


def from_datetime(moment: datetime) -> int:
    """Return an aware datetime's microseconds."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def day_of(us: int) -> date:
    """Return the UTC day a time lies in."""
    return date.fromordinal(_EPOCH_DAY.toordinal() + us // DAY_US)


def day_start_us(day: date) -> int:
    """Return the first microsecond of a UTC day."""
    return (day.toordinal() - _EPOCH_DAY.toordinal()) * DAY_US


def minute_start_us(us: int) -> int:
    """Return the first microsecond of the minute a time lies in."""
    return us - us % MINUTE_US
