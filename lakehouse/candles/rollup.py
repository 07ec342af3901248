"""Candles of hours and days from those of minutes, exactly: the trades aren't read again.

The sums, prices and ids of an hour are those of its minutes together (`minute.merged`). Whether an hour is
complete is asked as of a minute: is every id from `first_trade_id - 1` to `last_trade_id + 1` known? A minute
that is complete knows the ids from right before its first to right after its last. Minutes whose known ids
touch form a run, whichever hour they are in, and an hour is complete when all its minutes are and lie in one
run. So a complete hour never lacks a trade. One whose ids are all known is complete as well, unless more than
two ids in a row between its minutes belong to another hour's minute that is not complete.

Of the exchange's own minutes neither ids nor some of the sums are known. They follow one another by time, and
what is not known of a minute is not known of its hour: it is empty, and the hour is not complete.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.candles.minute import Candles, from_table, merged, to_table
from lakehouse.candles.rebuild import NotOneProductError
from lakehouse.market.columns import microseconds
from lakehouse.market.time import DAY_US, HOUR_US, MINUTE_US
from lakehouse.stores.schemas import CANDLES_1D, CANDLES_1H, NOT_TOLD, OF_EXCHANGE

WIDTH_US: Final = {CANDLES_1H.name: HOUR_US, CANDLES_1D.name: DAY_US}
"""Length of the intervals of each table that is made here."""

_TOUCHING = 3
"""Steps from a minute's last id to the first of another that still leave no id between them unknown."""


def rolled_up(minutes: pa.Table, width_us: int) -> pa.Table:
    """Return the candles of longer intervals, ordered by start.

    Args:
        minutes: all rows of `candles_1m` of a product's day, in any order.
        width_us: length of the intervals, a part of a day.

    Raises:
        NotOneProductError: rows of more than one product.
        SumTooLargeError: a sum has more than 38 digits.
    """
    products = pc.unique(minutes["product"]).to_pylist()
    if len(products) > 1:
        raise NotOneProductError(f"candles of {sorted(products)[:5]}: roll up one product at a time")
    minutes = minutes.sort_by("start")
    told = pc.equal(minutes["source"], OF_EXCHANGE).to_numpy()
    candles, complete = from_table(_with_places(minutes))
    longer = merged(candles, width_us=width_us)
    rows = to_table(longer, _complete(candles, _runs(candles, complete), longer, width_us))
    return _unknown(rows, np.isin(longer["start_us"], candles["start_us"][told] // width_us * width_us))


def _with_places(minutes: pa.Table) -> pa.Table:
    """Return minutes with their numbers in place of ids that the exchange doesn't tell, and so on.

    Such a minute is never complete: its number stands for an id in nothing but the order.
    """
    number = pa.array(microseconds(minutes["start"]) // MINUTE_US)
    # A volume is the sum of both sides': it has to be in one of them.
    places = {"first_trade_id": number, "last_trade_id": number, "taker_sell_volume": minutes["volume"]}
    for name in NOT_TOLD:
        known = minutes[name]
        if known.null_count:
            place = places.get(name, pa.scalar(0, known.type))
            at = minutes.schema.get_field_index(name)
            minutes = minutes.set_column(at, minutes.schema.field(at), pc.coalesce(known, place))
    return minutes


def _unknown(rows: pa.Table, told: npt.NDArray[np.bool_]) -> pa.Table:
    """Return candles of which some are made from minutes that the exchange told."""
    if not told.any():
        return rows
    by_exchange = pa.array(told)
    for name in (*NOT_TOLD, "source"):
        at = rows.schema.get_field_index(name)
        said = pa.scalar(OF_EXCHANGE if name == "source" else None, rows[name].type)
        rows = rows.set_column(at, rows.schema.field(at), pc.if_else(by_exchange, said, rows[name]))
    return rows


def _runs(candles: Candles, complete: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the number of the run that each candle is in, -1 for one that is not complete."""
    runs = np.full(len(candles), -1, dtype=np.int64)
    order = np.flatnonzero(complete)
    order = order[np.argsort(candles["first_trade_id"][order])]
    first, last = candles["first_trade_id"][order], candles["last_trade_id"][order]
    reached = np.maximum.accumulate(last)
    runs[order] = np.cumsum(np.append(False, first[1:] > reached[:-1] + _TOUCHING))[: len(order)]
    return runs


def _complete(
    candles: Candles, runs: npt.NDArray[np.int64], longer: Candles, width_us: int
) -> npt.NDArray[np.bool_]:
    if len(candles) == 0:
        return np.zeros(0, dtype=np.bool_)
    starts = np.searchsorted(candles["start_us"] // width_us, longer["start_us"] // width_us)
    lowest, highest = np.minimum.reduceat(runs, starts), np.maximum.reduceat(runs, starts)
    complete: npt.NDArray[np.bool_] = (lowest >= 0) & (lowest == highest)
    return complete
