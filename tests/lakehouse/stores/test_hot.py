"""The hot store: the latest never goes back, the window is the last hour, nothing is there twice."""

import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakehouse.market.product import InvalidProductError
from lakehouse.market.trade_columns import TradeColumns
from lakehouse.stores.hot import HotStore, TopOfBook
from lakehouse.stores.hot_store import LATEST, RECENT, HotStoreError

START = 1_700_000_000_000_000
HOUR = 3_600_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[HotStore]:
    with HotStore.open(tmp_path / "hot.db") as opened:
        yield opened


def trades(*rows: tuple[str, int, int], price: int = 100) -> TradeColumns:
    """(product, trade_id, µs after the start), priced by their id."""
    products = sorted({row[0] for row in rows})
    ids = np.array([row[1] for row in rows], dtype=np.int64)
    return TradeColumns(
        products,
        np.array([products.index(row[0]) for row in rows], dtype=np.int64),
        ids,
        np.array([START + row[2] for row in rows], dtype=np.int64),
        ids * price,
        ids,
        ids % 2 == 0,
        np.zeros(len(rows), dtype=np.bool_),
        np.full(len(rows), 2, dtype=np.uint8),
        np.array([START + row[2] + 5 for row in rows], dtype=np.int64),
    )


def top(product: str, bid: int, ask: int, imbalance: int | None = None) -> TopOfBook:
    return TopOfBook(product, 2, bid, 7, ask, 8, imbalance, START, START + 1)


def test_the_latest_trade_is_the_one_with_the_highest_id(store: HotStore) -> None:
    store.apply([trades(("BTC-USD", 7, 10), ("BTC-USD", 9, 5), ("BTC-USD", 8, 20))], [], {})
    store.apply([trades(("BTC-USD", 6, 30), price=1)], [], {})
    store.apply([trades(("BTC-USD", 9, 40), price=1)], [], {})
    latest = store.latest()
    assert latest.schema.equals(LATEST)
    (row,) = latest.to_pylist()
    assert (row["trade_id"], row["price"], row["taker_side"]) == (9, Decimal("0.00000900"), "sell")
    assert row["exchange"] == "coinbase"
    assert row["traded_at"].timestamp() == pytest.approx(1_700_000_000.000005, abs=1e-6)
    assert row["bid"] is row["mid"] is row["quoted_at"] is None


def test_a_quote_has_its_spread_mid_and_imbalance(store: HotStore) -> None:
    store.apply([], [top("BTC-USD", 100, 103, -50_000_000), top("ETH-USD", 10, 12)], {})
    btc, eth = store.latest().to_pylist()
    assert (btc["spread"], btc["mid"]) == (Decimal("0.00000003"), Decimal("0.000001015"))
    assert (btc["bid_size"], btc["ask_size"], btc["imbalance"]) == (
        Decimal("0.00000007"), Decimal("0.00000008"), Decimal("-0.5")
    )  # fmt: skip
    assert eth["imbalance"] is None
    assert eth["trade_id"] is None
    assert eth["product"] == "ETH-USD"


def test_the_last_quote_given_is_the_latest(store: HotStore) -> None:
    store.apply([], [top("BTC-USD", 100, 103), top("BTC-USD", 101, 104)], {})
    assert store.latest()["bid"].to_pylist() == [Decimal("0.00000101")]


def test_only_the_window_stays(store: HotStore) -> None:
    store.apply([trades(*(("BTC-USD", i, i * 60_000_000) for i in range(1, 60)))], [], {})
    store.apply([trades(("ETH-USD", 1, 0))], [], {})
    assert store.recent("BTC-USD").num_rows == 59
    store.apply([trades(("BTC-USD", 60, HOUR + 30_000_000))], [], {})
    recent = store.recent("BTC-USD")
    assert recent.schema.equals(RECENT)
    assert recent["trade_id"].to_pylist() == list(range(1, 61))
    store.apply([trades(("BTC-USD", 61, 2 * HOUR), ("BTC-USD", 2, 120_000_000))], [], {})
    assert store.recent("BTC-USD")["trade_id"].to_pylist() == [60, 61]
    assert store.recent("BTC-USD", since_us=START + 2 * HOUR)["trade_id"].to_pylist() == [61]
    assert store.recent("ETH-USD").num_rows == 1  # each product by its own time


def test_old_trades_are_really_gone(store: HotStore, tmp_path: Path) -> None:
    for hour in range(4):
        store.apply(
            [trades(*(("BTC-USD", 1000 * hour + i, hour * HOUR + i * 3_000_000) for i in range(1, 1000)))],
            [],
            {},
        )
    with sqlite3.connect(tmp_path / "hot.db") as connection:
        (rows,) = connection.execute("SELECT count(*) FROM recent_trades").fetchone()
    assert rows <= 1_400


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 10**9)), min_size=1), min_size=1))
def test_redelivery_and_order_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[int, int]]]
) -> None:
    unique = {trade_id: us for batch in batches for trade_id, us in batch}
    with HotStore.open(tmp_path_factory.mktemp("hot") / "hot.db") as store:
        seen = 0
        for batch in [*batches, *reversed(batches)]:
            store.apply([trades(*(("BTC-USD", trade_id, unique[trade_id]) for trade_id, _ in batch))], [], {})
            (latest,) = store.latest()["trade_id"].to_pylist()
            assert latest >= seen
            seen = latest
        assert store.recent("BTC-USD")["trade_id"].to_pylist() == sorted(unique)
        assert seen == max(unique)
        assert store.newest_us() == {"BTC-USD": START + max(unique.values())}


def test_offsets_move_with_the_data_or_not_at_all(store: HotStore, tmp_path: Path) -> None:
    store.apply([trades(("BTC-USD", 1, 0))], [], {("trades", 0): 5, ("quotes", 1): 7})
    with pytest.raises(InvalidProductError):
        store.apply([trades(("ETH-USD", 1, 0))], [top("../etc", 1, 2)], {("trades", 0): 6})
    assert store.offsets() == {("trades", 0): 5, ("quotes", 1): 7}
    assert store.recent("ETH-USD").num_rows == 0
    assert store.newest_us() == {"BTC-USD": START}
    store.apply([trades(("ETH-USD", 1, 0))], [], {("trades", 0): 6})  # the code of ETH-USD was rolled back
    store.close()
    with HotStore.open(tmp_path / "hot.db") as again:
        assert again.offsets()["trades", 0] == 6
        assert again.latest()["product"].to_pylist() == ["BTC-USD", "ETH-USD"]
        assert again.newest_us() == {"BTC-USD": START, "ETH-USD": START}


def test_unknown_products_have_nothing_and_hostile_names_are_refused(store: HotStore) -> None:
    assert store.recent("SOL-USD").num_rows == 0
    assert store.latest().num_rows == 0
    with pytest.raises(InvalidProductError):
        store.recent("BTC-USD' OR 1=1 --")


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hot.db").write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(HotStoreError, match="delete it"):
        HotStore.open(tmp_path / "hot.db")
