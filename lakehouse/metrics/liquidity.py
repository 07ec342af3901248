"""Rows of `liquidity`: what the quotes of a product's day say, each weighted by the time that it held.

A quote holds until the next one, but not longer than `LONGEST_HOLD_US`: after that nobody knows whether the
market stood still or the feed did, and the time counts as not covered. The last quote of the day before holds
into the day in the same way. Of quotes of one moment the last in the log counts, as the others held for no
time.

Means over time are what a trader would have met who came at a random moment of the covered time; means over
quotes would follow the busy minutes. The spread is the time-weighted percent quoted spread of C. W. Holden
and S. Jacobsen, Liquidity Measurement Problems in Fast, Competitive Markets (2014).
"""

from collections.abc import Mapping
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.market.columns import microseconds, scaled_integers
from lakehouse.market.time import DAY_US, MINUTE_US, day_start_us
from lakehouse.stores.schemas import LIQUIDITY

LONGEST_HOLD_US: Final = MINUTE_US
"""The best quote of a liquid product changes many times a second. A minute without any change is rare in a
market that is worth measuring, and common where the feed was away."""

COLUMNS: Final = (
    *("event_time", "spine_offset", "bid", "bid_size", "ask", "ask_size", "imbalance"),
    *("exchange", "recorded_at"),
)
"""The columns of `quotes` that are looked at."""

_SCALE = 1e8

Floats = npt.NDArray[np.float64]


def liquidity_rows(
    product: str, day: date, quotes: pa.Table, eve: pa.Table, depth: Mapping[str, float | None]
) -> pa.Table:
    """Return the row of `LIQUIDITY` of a product's day, none where it has no quotes.

    Args:
        product: whose quotes.
        day: UTC day.
        quotes: the day's rows of `quotes` with at least `COLUMNS`, in any order.
        eve: those of the day before, as far as they are known; only the last one matters.
        depth: what `depth_figures` says of the day.

    Raises:
        ValueError: a price or size is empty.
    """
    if quotes.num_rows == 0:
        return LIQUIDITY.schema.empty_table()
    start_us = day_start_us(day)
    rows = pa.concat_tables([_last(eve).select(COLUMNS), quotes.select(COLUMNS)])
    order = np.lexsort((rows["spine_offset"].to_numpy(), microseconds(rows["event_time"])))
    event_us = microseconds(rows["event_time"])[order]
    held_us = _held_us(event_us, start_us)
    bid, bid_size, ask, ask_size = (
        scaled_integers(rows[name])[order] / _SCALE for name in ("bid", "bid_size", "ask", "ask_size")
    )
    imbalance = rows["imbalance"].cast(pa.float64()).to_numpy()[order]
    has_imbalance = ~np.isnan(imbalance)
    figures = {
        "spread_bps": _mean(20_000 * (ask - bid) / (ask + bid), held_us),
        "imbalance": _mean(imbalance[has_imbalance], _held_us(event_us[has_imbalance], start_us)),
        "bid_depth": _mean(bid * bid_size, held_us),
        "ask_depth": _mean(ask * ask_size, held_us),
    }
    row = {
        "product": product,
        "day": day,
        "quotes": quotes.num_rows,
        "covered": int(held_us.sum()) / DAY_US,
        **figures,
        **depth,
        "exchange": pc.max(quotes["exchange"]).as_py(),
        "recorded_at": pc.max(quotes["recorded_at"]).as_py(),
    }
    return pa.Table.from_pylist([row], schema=LIQUIDITY.schema)


def _last(eve: pa.Table) -> pa.Table:
    if eve.num_rows == 0:
        return eve
    order = np.lexsort((eve["spine_offset"].to_numpy(), microseconds(eve["event_time"])))
    return eve.slice(int(order[-1]), 1)


def _held_us(event_us: npt.NDArray[np.int64], start_us: int) -> npt.NDArray[np.int64]:
    """Return how long each quote held within the day; they are in the order of time."""
    ends = np.minimum(np.append(event_us[1:], start_us + DAY_US), event_us + LONGEST_HOLD_US)
    held: npt.NDArray[np.int64] = np.minimum(ends, start_us + DAY_US) - np.maximum(event_us, start_us)
    return np.maximum(held, 0)


def _mean(values: Floats, held_us: npt.NDArray[np.int64]) -> float | None:
    total = int(held_us.sum())
    return float(values @ held_us / total) if total else None
