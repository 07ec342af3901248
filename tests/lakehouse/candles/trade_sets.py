"""Sets of trades for hypothesis, and how the engine takes them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from lakehouse.candles.rebuild import COLUMNS
from lakehouse.market.columns import decimals, times
from lakehouse.market.trade_columns import TradeColumns
from lakehouse.stores.schemas import PRICE, TRADES

START = 1_700_000_040_000_000 // 60_000_000 * 60_000_000
PRODUCTS = ["ETH-USD", "BTC-USD", "SOL-USD"]

_amounts = st.one_of(
    st.tuples(st.integers(1, 10**12), st.integers(1, 10**10)),
    st.tuples(st.integers(1, 10**18 - 1), st.integers(1, 10**10)),
    st.tuples(st.integers(1, 10**10), st.integers(1, 10**18 - 1)),
)


@st.composite
def trade_lists(draw: st.DrawFn, max_size: int = 40, spread_us: int = 240_000_000) -> list[dict[str, Any]]:
    """Trades in an order of arrival, ids with holes, each once."""
    keys = draw(
        st.lists(
            st.tuples(st.sampled_from(PRODUCTS), st.integers(1, 30)),
            min_size=1,
            max_size=max_size,
            unique=True,
        )
    )
    trades = []
    for arrival, (product, trade_id) in enumerate(keys):
        price, size = draw(_amounts)
        trades.append(
            {
                "product": product,
                "trade_id": trade_id,
                "event_us": START + draw(st.integers(0, spread_us)),
                "price": price,
                "size": size,
                "buy": draw(st.booleans()),
                "late": draw(st.booleans()),
                "recorded_us": START + 10**9 + arrival,
            }
        )
    return trades


def columns(trades: Sequence[dict[str, Any]]) -> TradeColumns:
    """The trades as arrays, in their order."""

    def of(name: str, kind: Any) -> Any:
        return np.array([trade[name] for trade in trades], dtype=kind)

    return TradeColumns(
        products=PRODUCTS,
        product=np.array([PRODUCTS.index(trade["product"]) for trade in trades], dtype=np.int64),
        trade_id=of("trade_id", np.int64),
        event_us=of("event_us", np.int64),
        price=of("price", np.int64),
        size=of("size", np.int64),
        taker_buys=of("buy", np.bool_),
        late=of("late", np.bool_),
        exchange=np.full(len(trades), 2, dtype=np.uint8),
        recorded_us=of("recorded_us", np.int64),
    )


def archived(trades: list[dict[str, Any]]) -> pa.Table:
    """The trades as the archive holds them."""
    arrays = columns(trades)
    made = {
        "product": pa.array([trade["product"] for trade in trades], pa.string()),
        "trade_id": pa.array(arrays.trade_id),
        "event_time": times(arrays.event_us),
        "price": decimals(arrays.price, PRICE),
        "size": decimals(arrays.size, PRICE),
        "taker_side": pa.array(["buy" if trade["buy"] else "sell" for trade in trades], pa.string()),
        "late": pa.array(arrays.late),
        "exchange": pa.array(["coinbase"] * len(trades), pa.string()),
        "recorded_at": times(arrays.recorded_us),
    }
    return pa.table(made, schema=pa.schema([TRADES.schema.field(name) for name in COLUMNS]))
