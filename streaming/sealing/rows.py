"""Rows of the trades table made from what the exchange's REST interface answered."""

from collections.abc import Sequence
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakehouse.market.columns import days, decimals, times, words
from lakehouse.market.time import DAY_US, MINUTE_US, day_start_us
from lakehouse.market.trade import Exchange, Side, Source, Trade
from lakehouse.stores.schemas import PRICE, TRADES

NO_OFFSET: Final = -1
"""Partition and offset of rows that the spine never carried."""

FETCHED: Final = np.dtype(
    [("trade_id", "<i8"), ("event_us", "<i8"), ("price", "<i8"), ("size", "<i8"), ("taker_side", "u1")]
)
"""A fetched trade; price and size scaled by 10⁸, time in µs UTC."""


def as_array(trades: Sequence[Trade]) -> npt.NDArray[np.void]:
    """Return trades of one product as `FETCHED` records, in the order given."""
    return np.array(
        [(trade.trade_id, trade.event_us, trade.price, trade.size, trade.taker_side) for trade in trades],
        dtype=FETCHED,
    )


def of_day(trades: npt.NDArray[np.void], day: date) -> npt.NDArray[np.void]:
    """Return the trades that happened on a UTC day."""
    start = day_start_us(day)
    return trades[(trades["event_us"] >= start) & (trades["event_us"] < start + DAY_US)]


def backfilled_rows(
    trades: npt.NDArray[np.void],
    product: str,
    exchange: Exchange,
    archived_event_us: npt.NDArray[np.int64],
    sealed_us: int,
) -> pa.Table:
    """Return fetched trades as rows of the trades table, in the order given.

    `late` is true for a trade whose minute the archive already had trades of: the candle of that minute was
    told before, so it is a revision. A day that was never streamed has no late trades.

    Args:
        trades: `FETCHED` records of one product and day.
        product: whose.
        exchange: where they were fetched.
        archived_event_us: the event times that the archive has of this product and day.
        sealed_us: when they were fetched; becomes received_at and recorded_at.
    """
    count = len(trades)
    event_us = np.ascontiguousarray(trades["event_us"])
    late = np.isin(event_us // MINUTE_US, archived_event_us // MINUTE_US)
    sealed = times(np.full(count, sealed_us, dtype=np.int64))
    columns = {
        "product": pa.repeat(product, count),
        "day": days(event_us),
        "trade_id": pa.array(trades["trade_id"]),
        "event_time": times(event_us),
        "price": decimals(trades["price"], PRICE),
        "size": decimals(trades["size"], PRICE),
        "taker_side": words(trades["taker_side"], [side.name.lower() for side in Side], "taker's side"),
        "late": pa.array(late),
        "source": pa.repeat(Source.BACKFILL.name.lower(), count),
        "exchange": pa.repeat(exchange.name.lower(), count),
        "received_at": sealed,
        "recorded_at": sealed,
        "spine_partition": pa.array(np.full(count, NO_OFFSET, dtype=np.int32)),
        "spine_offset": pa.array(np.full(count, NO_OFFSET, dtype=np.int64)),
    }
    return pa.table(columns, TRADES.schema)
