"""The window in memory answers as the hot store in SQLite does, in whatever order trades come, and again."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.market.columns import decimals, times
from lakehouse.market.product import InvalidProductError
from lakehouse.market.trade import Side
from lakehouse.market.trade_columns import TradeColumns
from lakehouse.stores.hot import HotStore
from lakehouse.stores.schemas import PRICE
from lakehouse.stores.trade_window import TradeWindow

MINUTE_US = 60_000_000
PRODUCTS = ("BTC-USD", "ETH-USD")


def columns(trades: list[tuple[int, int, int]]) -> TradeColumns:
    """Trades of (product, id, second): a trade's other columns follow from its id."""
    ids = np.array([trade_id for _, trade_id, _ in trades], dtype=np.int64)
    return TradeColumns(
        PRODUCTS,
        np.array([product for product, _, _ in trades], dtype=np.int64),
        ids,
        np.array([second * 1_000_000 for *_, second in trades], dtype=np.int64),
        ids * 7 + 1,
        ids * 3 + 2,
        ids % 2 == 0,
        np.zeros(len(ids), dtype=np.bool_),
        np.full(len(ids), 2, dtype=np.uint8),
        ids,
    )


def rows(trades: TradeColumns) -> pa.Table:
    sides = [(Side.BUY if buys else Side.SELL).name.lower() for buys in trades.taker_buys]
    return pa.table(
        {
            "product": [PRODUCTS[product] for product in trades.product],
            "trade_id": trades.trade_id,
            "event_time": times(trades.event_us),
            "price": decimals(trades.price, PRICE),
            "size": decimals(trades.size, PRICE),
            "taker_side": sides,
        }
    )


# A trade's time follows from its id but for some disorder, as on an exchange.
batches = st.lists(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(1, 60), st.integers(0, 3)).map(
            lambda made: (made[0], made[1], 10_000 + made[1] * 20 + made[2])
        ),
        min_size=1,
        max_size=12,
    ),
    max_size=12,
)


@given(batches, st.integers(0, 1300))
def test_it_answers_as_the_hot_store_does(
    tmp_path_factory: pytest.TempPathFactory, given_batches: list[list[tuple[int, int, int]]], since: int
) -> None:
    window = TradeWindow(5 * MINUTE_US)
    first: dict[tuple[int, int], tuple[int, int, int]] = {}
    with HotStore.open(tmp_path_factory.mktemp("hot") / "hot.db", window_minutes=5) as store:
        for batch in given_batches:
            made = columns([first.setdefault(trade[:2], trade) for trade in batch])
            window.take(rows(made))
            store.apply([made], [], {})
        assert window.newest_us() == store.newest_us()
        for product in PRODUCTS:
            for since_us in (None, (10_000 + since) * 1_000_000):
                assert window.recent(product, since_us=since_us).equals(
                    store.recent(product, since_us=since_us)
                )


def test_an_hour_of_trades_keeps_only_its_window() -> None:
    window = TradeWindow(MINUTE_US)
    for second in range(3600):
        window.take(rows(columns([(0, second * 10 + i, second) for i in range(10)])))
    recent = window.recent("BTC-USD")
    assert recent["trade_id"].to_pylist() == list(range((3599 - 60) * 10, 36_000))
    assert len(window._products["BTC-USD"].trades) < 5_000


def test_hostile_names_are_refused_and_unknown_products_have_nothing(tmp_path: Path) -> None:
    window = TradeWindow(MINUTE_US)
    with pytest.raises(InvalidProductError):
        window.recent("x' OR 1=1")
    assert window.recent("BTC-USD").num_rows == 0
    assert window.newest_us() == {}
