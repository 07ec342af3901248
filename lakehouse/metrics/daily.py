"""Rows of `metrics_daily` from the candles of days and minutes.

A day's figures reach back over the 90 days before it. So when a day's candle changes, its own row and those
of the `WINDOW_DAYS` days that follow it are other ones.
"""

from collections.abc import Collection, Mapping
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Final

import numpy as np
import pyarrow as pa

from lakehouse.market.columns import microseconds, scaled_integers
from lakehouse.market.time import DAY_US, MINUTE_US, day_start_us
from lakehouse.metrics.returns import (
    Floats,
    log_returns,
    realised_volatility,
    sharpe,
    simple_returns,
    volatility,
)
from lakehouse.stores.schemas import METRICS_DAILY

WINDOW_DAYS: Final = 90
"""How many days after a day have figures that it is part of."""

_STEP_US = 5 * MINUTE_US
_EXACT = Context(prec=76, rounding=ROUND_HALF_EVEN)
_VWAP_DIGITS = Decimal(1).scaleb(-16)


def metrics_rows(days: Collection[date], daily: pa.Table, realised: Mapping[date, float | None]) -> pa.Table:
    """Return the rows of `METRICS_DAILY` of those of `days` that have a candle.

    Args:
        days: which.
        daily: a product's rows of `candles_1d`, in any order: those of `days` and of the `WINDOW_DAYS` before
            each, as far as they are known.
        realised: the days' realised volatility, None where it is not known.
    """
    rows = {row["day"]: row for row in daily.to_pylist()}
    wanted = sorted(day for day in days if day in rows)
    if not wanted:
        return METRICS_DAILY.schema.empty_table()
    first = wanted[0] - timedelta(days=WINDOW_DAYS)
    closes = np.full((wanted[-1] - first).days + 1, np.nan)
    for day, row in rows.items():
        if first <= day <= wanted[-1]:
            closes[(day - first).days] = float(row["close"])
    figures = _figures(closes)
    made = [
        {
            **{name: rows[day][name] for name in METRICS_DAILY.schema.names if name in daily.column_names},
            "vwap": _vwap(rows[day]["quote_volume"], rows[day]["volume"]),
            "realised_volatility": realised.get(day),
            **{name: _known(values[(day - first).days]) for name, values in figures.items()},
        }
        for day in wanted
    ]
    return pa.Table.from_pylist(made, schema=METRICS_DAILY.schema)


def day_realised_volatility(minutes: pa.Table, day: date) -> float | None:
    """Return the realised volatility of a product's day from its 5-minute log returns.

    The price at the end of an interval is that of the last trade before it; the first is the day's first
    trade's.

    Args:
        minutes: all rows of `candles_1m` of the day, in any order.
        day: UTC day.

    Returns:
        None for a day without trades, or one of whose minutes is not complete.
    """
    if minutes.num_rows == 0 or not all(minutes["is_complete"].to_pylist()):
        return None
    minutes = minutes.sort_by("start")
    starts = microseconds(minutes["start"])
    ends = day_start_us(day) + np.arange(_STEP_US, DAY_US + 1, _STEP_US)
    last = np.searchsorted(starts, ends) - 1
    closes = scaled_integers(minutes["close"])[last[last >= 0]]
    opening = scaled_integers(minutes["open"].slice(0, 1))
    return realised_volatility(np.concatenate([opening, closes]).astype(np.float64))


def _figures(closes: Floats) -> dict[str, Floats]:
    daily, logs = simple_returns(closes), log_returns(closes)
    return {
        "simple_return": daily,
        "log_return": logs,
        "return_30d": simple_returns(closes, 30),
        "return_90d": simple_returns(closes, 90),
        "volatility_30d": volatility(logs, 30),
        "volatility_90d": volatility(logs, 90),
        "sharpe_30d": sharpe(daily, 30),
        "sharpe_90d": sharpe(daily, 90),
    }


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _vwap(quote_volume: Decimal | None, volume: Decimal) -> Any:
    if quote_volume is None or volume == 0:
        return None
    return _EXACT.quantize(_EXACT.divide(quote_volume, volume), _VWAP_DIGITS)
