"""The candles of one product from its archived trades."""

from collections.abc import Iterable
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.candles.minute import aggregated, completeness, to_table
from lakehouse.market.columns import codes, microseconds, scaled_integers
from lakehouse.market.trade import Exchange, Side
from lakehouse.market.trade_columns import TradeColumns
from lakehouse.market.trade_ids import TradeIds

COLUMNS: Final = (
    *("product", "trade_id", "event_time", "price", "size", "taker_side", "late", "exchange", "recorded_at"),
)
"""The columns of `trades` that candles come from."""


class NotOneProductError(ValueError):
    """Rows of several products were given where candles of one are rebuilt."""


def rebuild(trades: pa.Table, edges: Iterable[int] = ()) -> pa.Table:
    """Return the candles of trades as rows of `CANDLES_1M`, ordered by start.

    Args:
        trades: one product's rows of `trades` with at least `COLUMNS`, in any order, each trade once; usually
            a day of them. Texts may be dictionaries, which is faster.
        edges: known ids beside these rows: the id before the first and after the last decide whether the
            first and the last candle are complete.

    Raises:
        NotOneProductError: rows of more than one product.
        SumTooLargeError: a price or size is negative, or price × size is above 10²⁸.
        ValueError: a price or size is empty, or a side or exchange is none of ours.
    """
    products = pc.unique(trades["product"]).to_pylist()
    if len(products) > 1:
        raise NotOneProductError(f"trades of {sorted(products)[:5]}: rebuild one product at a time")
    count = trades.num_rows
    trade_id = trades["trade_id"].to_numpy()
    candles = aggregated(
        TradeColumns(
            products=products,
            product=np.zeros(count, dtype=np.int64),
            trade_id=trade_id,
            event_us=microseconds(trades["event_time"]),
            price=scaled_integers(trades["price"]),
            size=scaled_integers(trades["size"]),
            taker_buys=codes(trades["taker_side"], Side) == Side.BUY,
            late=trades["late"].to_numpy(),
            exchange=codes(trades["exchange"], Exchange),
            recorded_us=microseconds(trades["recorded_at"]),
        )
    )
    known = TradeIds()
    known.add_new(np.sort(trade_id))
    for edge in edges:
        known.add(edge)
    return to_table(candles, completeness(candles, dict.fromkeys(products, known)))
