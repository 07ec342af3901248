"""Rows of `metrics_daily` from candles of days and minutes."""

import math
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import empyrical
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_rows import DAY, make_candles

from lakehouse.candles.rollup import rolled_up
from lakehouse.market.time import DAY_US
from lakehouse.metrics.daily import day_realised_volatility, metrics_rows
from lakehouse.stores.schemas import METRICS_DAILY

DAILY_PRICES = st.integers(5_000, 50_000).map(lambda cents: Decimal(cents).scaleb(-2))
PRICES = st.decimals("0.00000001", "9999999999", places=8, allow_nan=False)


def candle(day: date, close: Decimal | str, volume: str = "2") -> pa.Table:
    row = make_candles([5], price=str(close), day=day).to_pylist()[0]
    row |= {"volume": Decimal(volume), "quote_volume": Decimal(volume) * Decimal(close)}
    return pa.Table.from_pylist([row], schema=make_candles([1]).schema)


def days_of(closes: dict[date, Decimal]) -> pa.Table:
    return pa.concat_tables([candle(day, close) for day, close in closes.items()])


@settings(max_examples=8)
@given(st.lists(DAILY_PRICES, min_size=95, max_size=95), st.sets(st.integers(0, 94), max_size=3))
def test_figures_are_those_of_the_closes_and_empty_where_one_is_not_known(
    prices: list[Decimal], unknown: set[int]
) -> None:
    closes = {DAY + timedelta(days=n): price for n, price in enumerate(prices) if n not in unknown}
    rows = metrics_rows(list(closes), days_of(closes), {})
    assert rows.schema.equals(METRICS_DAILY.schema)
    found = {row["day"]: row for row in rows.to_pylist()}
    assert list(found) == sorted(closes)
    for day, row in found.items():

        def close(back: int, day: date = day) -> float | None:
            known = closes.get(day - timedelta(days=back))
            return None if known is None else float(known)

        assert row["close"] == closes[day]
        for name, back in (("simple_return", 1), ("return_30d", 30), ("return_90d", 90)):
            before = close(back)
            assert (row[name] is None) == (before is None)
            if before is not None:
                assert row[name] == pytest.approx(float(closes[day]) / before - 1)
        for window in (30, 90):
            history = [close(back) for back in range(window, -1, -1)]
            assert (row[f"volatility_{window}d"] is None) == (None in history)
            if None not in history:
                returns = empyrical.simple_returns(np.array(history))
                volatility = empyrical.annual_volatility(np.log1p(returns), annualization=365)
                assert row[f"volatility_{window}d"] == pytest.approx(volatility)
                if np.unique(returns).size > 1:
                    ratio = empyrical.sharpe_ratio(returns, annualization=365)
                    assert row[f"sharpe_{window}d"] == pytest.approx(ratio, rel=1e-6)


@given(PRICES, st.decimals("0.00000001", "1000000000", places=8, allow_nan=False))
def test_the_vwap_is_exact_to_its_last_digit(price: Decimal, volume: Decimal) -> None:
    row = candle(DAY, "1").to_pylist()[0]
    quote_volume = (price * Decimal("1.5")).quantize(Decimal(1).scaleb(-16))
    row |= {"volume": volume, "quote_volume": quote_volume}
    table = pa.Table.from_pylist([row], schema=make_candles([1]).schema)
    (found,) = metrics_rows([DAY], table, {}).to_pylist()
    difference = Fraction(found["vwap"]) - Fraction(quote_volume) / Fraction(volume)
    assert abs(difference) <= Fraction(1, 2 * 10**16)
    assert (found["volume"], found["quote_volume"]) == (volume, quote_volume)


def test_a_day_without_volume_has_no_vwap_and_one_without_a_candle_no_row() -> None:
    days = [DAY, DAY + timedelta(days=1)]
    (row,) = metrics_rows(days, candle(DAY, "7", volume="0"), {}).to_pylist()
    assert row["vwap"] is None
    assert metrics_rows([days[1]], candle(DAY, "7"), {}).num_rows == 0


def minutes_of(closes: dict[int, str]) -> pa.Table:
    return pa.concat_tables([make_candles([minute], price=price) for minute, price in closes.items()])


def test_realised_volatility_takes_the_last_price_of_each_five_minutes() -> None:
    # 00:02 opens at 100; 00:04 closes the first interval at 110; 99 at 00:07 is still the price at 23:59.
    table = minutes_of({4: "110", 2: "100", 7: "99", 6: "50"})
    steps = [math.log(110 / 100), math.log(99 / 110)]
    assert day_realised_volatility(table, DAY) == pytest.approx(math.sqrt(365 * sum(s * s for s in steps)))


def test_a_day_with_a_missing_trade_has_no_realised_volatility() -> None:
    table = minutes_of({4: "110", 2: "100"})
    incomplete: Any = pa.array([True, False])
    at = table.schema.get_field_index("is_complete")
    assert day_realised_volatility(table.set_column(at, table.schema.field(at), incomplete), DAY) is None
    assert day_realised_volatility(table.slice(0, 0), DAY) is None


def test_the_day_and_its_minutes_have_the_same_volume() -> None:
    minutes = minutes_of({4: "110", 2: "100"})
    (row,) = metrics_rows([DAY], rolled_up(minutes, DAY_US), {DAY: 0.5}).to_pylist()
    assert row["volume"] == Decimal(210)
    assert row["vwap"] == Decimal("105.2380952380952381")
    assert row["realised_volatility"] == 0.5
