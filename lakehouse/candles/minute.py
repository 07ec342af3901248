"""One-minute candles from trades, exactly, and the merging of candles of disjoint sets of trades.

A minute is [start, start + 60 s) by the trades' own time, UTC. Open and close are the trades with the lowest
and highest trade_id. Merging is associative and commutative, so a candle depends on the set of its trades
alone: not on their order, nor on how they were cut into batches.

Only minutes with trades have a candle. A *filled* minute is one between two candles without a trade: open =
high = low = close = the close before it, volumes 0, `is_filled` true. Filled minutes are a view over the
table (`candles_1m_filled`), never rows of it; where the candle before is not complete nothing is known of the
minutes that follow, and none are filled.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakehouse.candles.wide import WIDE, added, as_limbs, sums, sums_of_products, sums_of_wide
from lakehouse.market.columns import (
    codes,
    days,
    decimals,
    microseconds,
    scaled_integers,
    times,
    wide_decimals,
    wide_integers,
    words,
)
from lakehouse.market.product import MAX_LENGTH
from lakehouse.market.time import MINUTE_US
from lakehouse.market.trade import Exchange
from lakehouse.market.trade_columns import TradeColumns
from lakehouse.market.trade_ids import TradeIds
from lakehouse.stores.schemas import CANDLES_1M, OF_TRADES, PRICE, QUOTE_VOLUME, VOLUME

CANDLE: Final = np.dtype(
    [
        ("product", f"S{MAX_LENGTH}"),
        ("start_us", "<i8"),
        ("open", "<i8"),
        ("high", "<i8"),
        ("low", "<i8"),
        ("close", "<i8"),
        ("buy_volume", WIDE),
        ("sell_volume", WIDE),
        ("quote_volume", WIDE),
        ("trade_count", "<i8"),
        ("first_trade_id", "<i8"),
        ("last_trade_id", "<i8"),
        ("late", "<i8"),
        ("recorded_us", "<i8"),
        ("exchange", "u1"),
    ]
)
"""What the trades of one product in one interval add up to.

Prices are scaled by 10⁸, volumes too, `quote_volume` by 10¹⁶. Arrays of it that functions here return are
ordered by product and start and hold each pair once.
"""

Candles = npt.NDArray[np.void]

EXCHANGES: Final = [Exchange(code).name.lower() if code in list(Exchange) else None for code in range(256)]
"""The exchanges' names by their codes."""


def aggregated(trades: TradeColumns) -> Candles:
    """Return the candles of trades, each (product, trade_id) among which is there once.

    Raises:
        SumTooLargeError: a price or size is negative, or price × size is above 10²⁸.
    """
    count = len(trades)
    if count == 0:
        return np.zeros(0, dtype=CANDLE)
    minute = trades.event_us // MINUTE_US
    first_minute = int(minute.min())
    minutes = int(minute.max()) - first_minute + 1
    group = (minute - first_minute) + trades.product.astype(np.int64) * minutes
    order = _grouped(group, len(trades.products) * minutes, trades.trade_id)
    trade_id, price, size, recorded_us = trades.trade_id, trades.price, trades.size, trades.recorded_us
    buys, late = trades.taker_buys, trades.late
    if order is not None:
        group, trade_id, price, size = group[order], trade_id[order], price[order], size[order]
        recorded_us, buys, late = recorded_us[order], buys[order], late[order]
    starts = np.concatenate(([0], np.flatnonzero(group[1:] != group[:-1]) + 1))
    ends = np.append(starts[1:], count) - 1
    of_group = group[starts]
    bought = np.where(buys, size, 0)

    candles = np.zeros(len(starts), dtype=CANDLE)
    candles["product"] = np.array(trades.products, dtype=CANDLE["product"])[of_group // minutes]
    candles["start_us"] = (of_group % minutes + first_minute) * MINUTE_US
    candles["open"] = price[starts]
    candles["close"] = price[ends]
    candles["high"] = np.maximum.reduceat(price, starts)
    candles["low"] = np.minimum.reduceat(price, starts)
    candles["buy_volume"] = sums(bought, starts)
    candles["sell_volume"] = sums(size - bought, starts)
    candles["quote_volume"] = sums_of_products(price, size, starts)
    candles["trade_count"] = ends - starts + 1
    candles["first_trade_id"] = trade_id[starts]
    candles["last_trade_id"] = trade_id[ends]
    candles["late"] = np.add.reduceat(late.astype(np.int64), starts)
    candles["recorded_us"] = np.maximum.reduceat(recorded_us, starts)
    candles["exchange"] = trades.exchange[ends if order is None else order[ends]]
    # Products are numbered as the caller likes; candles are ordered by name.
    return candles[np.lexsort((candles["start_us"], candles["product"]))]


def _grouped(
    group: npt.NDArray[np.int64], groups: int, trade_id: npt.NDArray[np.int64]
) -> npt.NDArray[np.intp] | None:
    """Return the order by group, then trade id; None where it is so already."""
    small = group.astype(np.uint16) if groups <= 2**16 else group  # numpy sorts 16 bits by radix
    order = None if (small[1:] >= small[:-1]).all() else np.argsort(small, kind="stable")
    grouped, ids = (small, trade_id) if order is None else (small[order], trade_id[order])
    if ((ids[1:] > ids[:-1]) | (grouped[1:] != grouped[:-1])).all():
        return order
    return np.lexsort((trade_id, small))


def merged(*parts: Candles, width_us: int = MINUTE_US) -> Candles:
    """Return the candles of all trades together; no trade may be in two of them.

    Args:
        parts: candles, several of one product and interval among them.
        width_us: length of the resulting intervals, at least that of the parts': 3.6 · 10⁹ makes hours.

    Raises:
        SumTooLargeError: a sum has more than 38 digits.
    """
    rows = np.concatenate([np.zeros(0, dtype=CANDLE), *parts])
    if len(rows) == 0:
        return rows
    start_us = rows["start_us"] - rows["start_us"] % width_us
    by_first = rows[np.lexsort((rows["first_trade_id"], start_us, rows["product"]))]
    by_last = rows[np.lexsort((rows["last_trade_id"], start_us, rows["product"]))]
    product = by_first["product"]
    start_us = by_first["start_us"] - by_first["start_us"] % width_us
    differs = (product[1:] != product[:-1]) | (start_us[1:] != start_us[:-1])
    starts = np.concatenate(([0], np.flatnonzero(differs) + 1))
    ends = np.append(starts[1:], len(rows)) - 1

    candles = by_first[starts]  # product, open and first_trade_id are these already
    candles["start_us"] = start_us[starts]
    candles["high"] = np.maximum.reduceat(by_first["high"], starts)
    candles["low"] = np.minimum.reduceat(by_first["low"], starts)
    for volume in ("buy_volume", "sell_volume", "quote_volume"):
        candles[volume] = sums_of_wide(by_first[volume], starts)
    for count in ("trade_count", "late"):
        candles[count] = np.add.reduceat(by_first[count], starts)
    candles["recorded_us"] = np.maximum.reduceat(by_first["recorded_us"], starts)
    for of_last in ("close", "last_trade_id", "exchange"):
        candles[of_last] = by_last[of_last][ends]
    return candles


def completeness(candles: Candles, known: Mapping[str, TradeIds]) -> npt.NDArray[np.bool_]:
    """Tell for each candle whether every id from first_trade_id - 1 to last_trade_id + 1 is known.

    So the minute that is still open is not complete, nor is the first after a first start, nor one with a
    gap in it or beside it. Ids begin at 1: nothing is asked of an id 0.

    Args:
        candles: of any products.
        known: the ids of all known trades by product, whatever their minute.
    """
    return np.fromiter(
        (
            (ids := known.get(product.decode())) is not None and ids.covers(max(first - 1, 1), last + 1)
            for product, first, last in zip(
                candles["product"].tolist(),
                candles["first_trade_id"].tolist(),
                candles["last_trade_id"].tolist(),
                strict=True,
            )
        ),
        dtype=np.bool_,
        count=len(candles),
    )


def to_table(candles: Candles, complete: npt.NDArray[np.bool_]) -> pa.Table:
    """Return candles as rows of `CANDLES_1M`; `complete` is what `completeness` says of each."""
    names, product = np.unique(candles["product"], return_inverse=True)
    start_us = np.ascontiguousarray(candles["start_us"])
    buys, sells = candles["buy_volume"], candles["sell_volume"]
    columns = {
        "product": words(product, [name.decode() for name in names.tolist()]),
        "day": days(start_us),
        "start": times(start_us),
        **{name: decimals(candles[name], PRICE) for name in ("open", "high", "low", "close")},
        "volume": wide_decimals(as_limbs(added(buys, sells)), VOLUME),
        "quote_volume": wide_decimals(as_limbs(candles["quote_volume"]), QUOTE_VOLUME),
        "taker_buy_volume": wide_decimals(as_limbs(buys), VOLUME),
        "taker_sell_volume": wide_decimals(as_limbs(sells), VOLUME),
        "trade_count": pa.array(candles["trade_count"]),
        "first_trade_id": pa.array(candles["first_trade_id"]),
        "last_trade_id": pa.array(candles["last_trade_id"]),
        "is_complete": pa.array(complete),
        "revision": pa.array(candles["late"]),
        "source": pa.repeat(OF_TRADES, len(candles)),
        "exchange": words(candles["exchange"], EXCHANGES, "exchange"),
        "recorded_at": times(np.ascontiguousarray(candles["recorded_us"])),
    }
    return pa.table([columns[name] for name in CANDLES_1M.schema.names], schema=CANDLES_1M.schema)


def from_table(rows: pa.Table) -> tuple[Candles, npt.NDArray[np.bool_]]:
    """Return rows of a table of candles as candles in the order given, and whether each is complete.

    Args:
        rows: candles of trades; those of the exchange lack what candles here have.

    Raises:
        ValueError: a price or size is empty, or an exchange is none of ours.
    """
    candles = np.zeros(rows.num_rows, dtype=CANDLE)
    candles["product"] = rows["product"].to_numpy()
    candles["start_us"] = microseconds(rows["start"])
    for price in ("open", "high", "low", "close"):
        candles[price] = scaled_integers(rows[price])
    for name, column in (
        ("buy_volume", "taker_buy_volume"),
        ("sell_volume", "taker_sell_volume"),
        ("quote_volume", "quote_volume"),
    ):
        candles[name] = wide_integers(rows[column]).view(WIDE).reshape(-1)
    for count in ("trade_count", "first_trade_id", "last_trade_id"):
        candles[count] = rows[count].to_numpy()
    candles["late"] = rows["revision"].to_numpy()
    candles["recorded_us"] = microseconds(rows["recorded_at"])
    candles["exchange"] = codes(rows["exchange"], Exchange)
    return candles, rows["is_complete"].to_numpy()
