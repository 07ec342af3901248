"""Candles that the exchange alone tells: what it says stays as it is, what it doesn't say stays unknown."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.candles.of_exchange import of_exchange
from lakehouse.candles.rollup import rolled_up
from lakehouse.market.time import DAY_US, HOUR_US, MINUTE_US
from lakehouse.stores.schemas import CANDLES_1M, EXCHANGE_CANDLES, NOT_TOLD

DAY = date(2020, 1, 2)
MIDNIGHT = datetime(2020, 1, 2, tzinfo=UTC)
WIDTHS = st.sampled_from([MINUTE_US, 5 * MINUTE_US, HOUR_US, DAY_US])

prices = st.integers(1, 10**18 - 1).map(lambda scaled: Decimal(scaled).scaleb(-8))
volumes = st.integers(0, 10**26).map(lambda scaled: Decimal(scaled).scaleb(-8))


@st.composite
def told_days(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A day of an exchange's candles, in the order of their minutes."""
    rows = []
    for minute in sorted(draw(st.sets(st.integers(0, 1439), min_size=1, max_size=20))):
        low, one, other, high = sorted(draw(st.lists(prices, min_size=4, max_size=4)))
        rows.append(
            {"product": "BTC-USD", "day": DAY, "start": MIDNIGHT + timedelta(minutes=minute)}
            | {"open": one, "high": high, "low": low, "close": other, "volume": draw(volumes)}
            | {"exchange": "coinbase", "recorded_at": MIDNIGHT + timedelta(days=900, minutes=minute)}
        )
    return rows


def in_any_order(rows: list[dict[str, Any]], data: st.DataObject) -> pa.Table:
    return pa.Table.from_pylist(data.draw(st.permutations(rows)), EXCHANGE_CANDLES.schema)


@given(told_days(), st.data())
def test_a_day_that_the_exchange_tells_is_what_it_says_and_nothing_else(
    rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    candles = of_exchange(in_any_order(rows, data))
    assert candles.schema.equals(CANDLES_1M.schema)
    unknown = dict.fromkeys(NOT_TOLD) | {"is_complete": False, "revision": 0, "source": "exchange"}
    assert candles.to_pylist() == [row | unknown for row in rows]


@given(told_days(), WIDTHS, st.data())
def test_longer_candles_know_of_such_minutes_what_is_known(
    rows: list[dict[str, Any]], width_us: int, data: st.DataObject
) -> None:
    width = timedelta(microseconds=width_us)
    intervals: dict[datetime, list[dict[str, Any]]] = {}
    for row in rows:
        intervals.setdefault(row["start"] - (row["start"] - MIDNIGHT) % width, []).append(row)
    expected = [
        of_interval[0]
        | {"start": start, "close": of_interval[-1]["close"]}
        | {"high": max(row["high"] for row in of_interval), "low": min(row["low"] for row in of_interval)}
        | {"volume": sum(row["volume"] for row in of_interval), "recorded_at": of_interval[-1]["recorded_at"]}
        | dict.fromkeys(NOT_TOLD)
        | {"is_complete": False, "revision": 0, "source": "exchange"}
        for start, of_interval in intervals.items()
    ]
    assert rolled_up(of_exchange(in_any_order(rows, data)), width_us).to_pylist() == expected


def test_no_candles_make_none() -> None:
    assert of_exchange(EXCHANGE_CANDLES.schema.empty_table()).equals(CANDLES_1M.schema.empty_table())
