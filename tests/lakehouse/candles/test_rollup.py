"""Hours and days of candles are those of their trades, in all columns."""

from fractions import Fraction
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_candles import COMPARED, from_rows, reference
from trade_sets import START, archived, trade_lists

from lakehouse.candles.rebuild import NotOneProductError, rebuild
from lakehouse.candles.rollup import rolled_up
from lakehouse.market.time import DAY_US, HOUR_US, MINUTE_US
from lakehouse.stores.schemas import CANDLES_1M

WIDTHS = st.sampled_from([MINUTE_US, 5 * MINUTE_US, HOUR_US, DAY_US])


def slowly(trades: list[dict[str, Any]], edges: set[tuple[str, int]], width_us: int) -> dict[Any, Any]:
    """The candles of an interval's trades, as if they had all happened in its first minute."""
    moved = [t | {"event_us": t["event_us"] // width_us * width_us} for t in trades]
    return reference(moved, edges)


@given(trade_lists(spread_us=3 * HOUR_US), WIDTHS, st.data())
def test_they_are_those_of_their_trades_and_never_complete_with_a_trade_missing(
    trades: list[dict[str, Any]], width_us: int, data: st.DataObject
) -> None:
    product = trades[0]["product"]
    trades = [trade for trade in trades if trade["product"] == product]
    ids = {trade["trade_id"] for trade in trades}
    edges = data.draw(st.sets(st.sampled_from([min(ids) - 1, max(ids) + 1])))
    minutes = rebuild(archived(trades), edges)
    order = pa.array(data.draw(st.permutations(range(minutes.num_rows))), pa.int64())
    found = rolled_up(minutes.take(order), width_us)
    assert found.schema.equals(CANDLES_1M.schema)
    assert found.sort_by("start").equals(found)
    expected = slowly(trades, {(product, edge) for edge in edges}, width_us)
    stored = from_rows(found.to_pylist())
    assert stored.keys() == expected.keys()
    for key, candle in stored.items():
        assert expected[key]["is_complete"] or not candle["is_complete"]
        assert {k: v for k, v in candle.items() if k != "is_complete"} == {
            k: v for k, v in expected[key].items() if k != "is_complete"
        }


@given(st.sets(st.integers(2, 60), min_size=1), st.sets(st.sampled_from([1, 61])), WIDTHS, st.data())
def test_where_ids_go_with_time_they_are_complete_just_when_no_id_is_missing(
    ids: set[int], beside: set[int], width_us: int, data: st.DataObject
) -> None:
    moments = sorted(data.draw(st.lists(st.integers(0, 3 * HOUR_US), min_size=len(ids), max_size=len(ids))))
    trades = [
        {"product": "BTC-USD", "trade_id": number, "event_us": START + moment, "price": number, "size": 1}
        | {"buy": True, "late": False, "recorded_us": START}
        for number, moment in zip(sorted(ids), moments, strict=True)
    ]
    edges = {number for number in beside if number not in ids}
    found = from_rows(rolled_up(rebuild(archived(trades), edges), width_us).to_pylist())
    assert found == slowly(trades, {("BTC-USD", edge) for edge in edges}, width_us)


def test_ids_that_cross_an_hour_are_known_all_the_same() -> None:
    def trade(number: int, hour: int) -> dict[str, Any]:
        moment = {"event_us": START // HOUR_US * HOUR_US + hour * HOUR_US, "recorded_us": START}
        return moment | {
            **{"product": "BTC-USD", "trade_id": number, "price": 1, "size": 1, "buy": True, "late": False}
        }

    trades = [trade(1, 0), trade(2, 1), trade(3, 0), trade(4, 1), trade(5, 2)]
    found = rolled_up(rebuild(archived(trades)), HOUR_US)
    assert found["is_complete"].to_pylist() == [True, True, False]
    assert found["trade_count"].to_pylist() == [2, 2, 1]


def test_sums_larger_than_64_bits_are_exact() -> None:
    trades = [
        {"product": "BTC-USD", "trade_id": number, "event_us": START + number * MINUTE_US, "price": 10**10}
        | {"size": 10**18 - 1, "buy": number % 2 == 0, "late": True, "recorded_us": START}
        for number in range(1, 41)
    ]
    (row,) = from_rows(rolled_up(rebuild(archived(trades)), DAY_US).to_pylist()).values()
    size = Fraction(10**18 - 1, 10**8)
    assert (row["volume"], row["taker_buy_volume"], row["revision"]) == (40 * size, 20 * size, 40)
    assert row["quote_volume"] == 40 * 100 * size
    assert set(row) == set(COMPARED)


def test_no_minutes_make_no_hours_and_one_product_at_a_time() -> None:
    empty = CANDLES_1M.schema.empty_table()
    assert rolled_up(empty, HOUR_US).equals(empty)
    trade = {"trade_id": 1, "event_us": START, "price": 1, "size": 1, "buy": True, "late": False}
    both = [
        rebuild(archived([trade | {"product": product, "recorded_us": START}]))
        for product in ("BTC-USD", "ETH-USD")
    ]
    with pytest.raises(NotOneProductError, match="roll up one"):
        rolled_up(pa.concat_tables(both), HOUR_US)
