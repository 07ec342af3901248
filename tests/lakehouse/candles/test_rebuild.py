"""Candles of a day from archived rows are those that the live candles would be."""

from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_candles import from_rows, reference
from trade_sets import archived, trade_lists

from lakehouse.candles.rebuild import NotOneProductError, rebuild
from lakehouse.stores.schemas import CANDLES_1M, PRICE


@given(trade_lists(), st.data())
def test_a_rebuild_equals_the_slow_computation(trades: list[dict[str, Any]], data: st.DataObject) -> None:
    product = trades[0]["product"]
    of_product = [trade for trade in trades if trade["product"] == product]
    ids = {trade["trade_id"] for trade in of_product}
    edges = data.draw(st.sets(st.sampled_from([min(ids) - 1, max(ids) + 1])))
    cut = data.draw(st.integers(0, len(of_product)))
    rows = pa.concat_tables([archived(of_product[:cut]), archived(of_product[cut:])])  # two chunks
    candles = rebuild(rows, edges)
    assert candles.schema.equals(CANDLES_1M.schema)
    assert candles["exchange"].to_pylist() == ["coinbase"] * candles.num_rows
    assert from_rows(candles.to_pylist()) == reference(of_product, {(product, edge) for edge in edges})
    assert candles.sort_by("start").equals(candles)


def test_a_day_without_trades_has_no_candles() -> None:
    assert rebuild(archived([])).num_rows == 0


def test_one_product_at_a_time() -> None:
    trade = {
        "trade_id": 1,
        "event_us": 0,
        "price": 1,
        "size": 1,
        "buy": True,
        "late": False,
        "recorded_us": 0,
    }
    both = [trade | {"product": "BTC-USD"}, trade | {"product": "ETH-USD"}]
    with pytest.raises(NotOneProductError, match="BTC-USD"):
        rebuild(archived(both))


def test_an_empty_price_is_refused() -> None:
    trade = {
        "trade_id": 1,
        "event_us": 0,
        "price": 1,
        "size": 1,
        "buy": True,
        "late": False,
        "recorded_us": 0,
    }
    rows = archived([trade | {"product": "BTC-USD"}])
    rows = rows.set_column(3, "price", pa.array([None], PRICE))
    with pytest.raises(ValueError, match="empty"):
        rebuild(rows)


def test_a_word_that_is_no_side_is_refused() -> None:
    trade = {
        "trade_id": 1,
        "event_us": 0,
        "price": 1,
        "size": 1,
        "buy": True,
        "late": False,
        "recorded_us": 0,
    }
    rows = archived([trade | {"product": "BTC-USD"}])
    rows = rows.set_column(5, "taker_side", pa.array(["hold"]))
    with pytest.raises(ValueError, match="'HOLD' is no side"):
        rebuild(rows)


def test_the_day_is_that_of_the_minute() -> None:
    us = (np.datetime64("2026-11-20T23:59:59.999999") - np.datetime64(0, "us")).astype(int)
    trade = {"product": "BTC-USD", "trade_id": 1, "event_us": int(us), "price": 1, "size": 1, "buy": True}
    rows = archived([trade | {"late": False, "recorded_us": 0}])
    assert rebuild(rows)["day"].to_pylist() == [date(2026, 11, 20)]
