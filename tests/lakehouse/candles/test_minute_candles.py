"""Candles of sets of trades: equal to a slow computation, whatever the order and the batches."""

import csv
import io
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_candles import from_rows, reference
from trade_sets import columns, trade_lists

from lakehouse.candles.minute import CANDLE, Candles, aggregated, completeness, merged, to_table
from lakehouse.candles.wide import SumTooLargeError
from lakehouse.market.exact import scaled
from lakehouse.market.trade_ids import TradeIds
from lakehouse.stores.schemas import CANDLES_1M


def known(trades: list[dict[str, Any]]) -> dict[str, TradeIds]:
    ids: dict[str, TradeIds] = {}
    for trade in trades:
        ids.setdefault(trade["product"], TradeIds()).add(trade["trade_id"])
    return ids


def rows(candles: Candles, trades: list[dict[str, Any]]) -> list[dict[str, Any]]:
    table = to_table(candles, completeness(candles, known(trades)))
    assert table.schema.equals(CANDLES_1M.schema)
    table.validate(full=True)
    found: list[dict[str, Any]] = table.to_pylist()
    return found


@given(trade_lists())
def test_candles_equal_the_slow_computation(trades: list[dict[str, Any]]) -> None:
    assert from_rows(rows(aggregated(columns(trades)), trades)) == reference(trades)


@given(trade_lists(), st.randoms(use_true_random=False))
def test_order_changes_nothing(trades: list[dict[str, Any]], random: Any) -> None:
    shuffled = random.sample(trades, len(trades))
    assert aggregated(columns(shuffled)).tobytes() == aggregated(columns(trades)).tobytes()


@given(trade_lists(), st.data())
def test_any_split_merges_to_the_whole(trades: list[dict[str, Any]], data: st.DataObject) -> None:
    part_of = [data.draw(st.integers(0, 3)) for _ in trades]
    parts = [
        aggregated(columns([t for t, p in zip(trades, part_of, strict=True) if p == i])) for i in range(4)
    ]
    whole = aggregated(columns(trades)).tobytes()
    a, b, c, d = parts
    assert merged(*parts).tobytes() == whole
    assert merged(d, b, a, c).tobytes() == whole
    assert (
        merged(merged(a, b), merged(c, d)).tobytes() == merged(a, merged(b, merged(c, d))).tobytes() == whole
    )


@given(trade_lists())
def test_merging_minutes_to_longer_intervals(trades: list[dict[str, Any]]) -> None:
    one_by_one = [aggregated(columns([trade])) for trade in trades]
    hour = merged(*one_by_one, width_us=3_600_000_000)
    # The hour of the same trades moved into one minute.
    start_us = int(hour["start_us"][0])
    moved = [trade | {"event_us": start_us + trade["event_us"] % 60_000_000} for trade in trades]
    assert len({trade["event_us"] // 3_600_000_000 for trade in trades}) == 1
    assert hour.tobytes() == aggregated(columns(moved)).tobytes()


def test_no_trades_no_candles() -> None:
    assert len(aggregated(columns([]))) == len(merged()) == 0
    assert to_table(aggregated(columns([])), np.zeros(0, dtype=np.bool_)).num_rows == 0


def test_amounts_beyond_every_market_are_refused() -> None:
    trade = {"product": "BTC-USD", "trade_id": 1, "event_us": 0, "buy": True, "late": False, "recorded_us": 0}
    with pytest.raises(SumTooLargeError):
        aggregated(columns([trade | {"price": 10**18 - 1, "size": 10**12}]))
    with pytest.raises(SumTooLargeError):
        aggregated(columns([trade | {"price": 1, "size": -1}]))


def test_a_minute_at_a_gap_is_not_complete() -> None:
    trades = [
        {"product": "BTC-USD", "trade_id": i, "event_us": i * 20_000_000, "price": 1, "size": 1, "buy": True}
        | {"late": False, "recorded_us": 0}
        for i in (3, 4, 5, 6, 7, 8, 12, 13, 14, 15, 16, 17)  # 9 to 11 are missing
    ]
    candles = aggregated(columns(trades))
    complete = completeness(candles, known(trades))
    minutes = dict(zip((candles["start_us"] // 60_000_000).tolist(), complete.tolist(), strict=True))
    assert minutes == {1: False, 2: False, 4: False, 5: False}
    complete = completeness(candles, {"BTC-USD": TradeIds([(2, 18)])})
    assert complete.all()
    assert not completeness(candles, {"ETH-USD": TradeIds([(2, 18)])}).any()


def test_the_first_trade_of_all_needs_none_before_it() -> None:
    trade = {"product": "BTC-USD", "trade_id": 1, "event_us": 0, "price": 1, "size": 1, "buy": True}
    candles = aggregated(columns([trade | {"late": False, "recorded_us": 0}]))
    assert completeness(candles, {"BTC-USD": TradeIds([(1, 2)])}).all()


def bars(market_data: Path, day: str, resolution: str) -> list[list[str]]:
    with zipfile.ZipFile(market_data / "lean-coinbase-btcusd" / f"{day}_{resolution}.zip") as archive:
        text = archive.read(archive.namelist()[0]).decode()
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize("day", ["20161007", "20161008"])
def test_real_second_bars_merge_to_the_real_minute_bars(market_data: Path, day: str) -> None:
    seconds = np.zeros(0, dtype=CANDLE)
    for position, (ms, *prices, volume) in enumerate(bars(market_data, day, "second"), start=1):
        bar = np.zeros(1, dtype=CANDLE)
        bar["product"] = b"BTC-USD"
        bar["start_us"] = int(ms) * 1000
        for name, price in zip(("open", "high", "low", "close"), prices, strict=True):
            bar[name] = scaled(price)
        bar["buy_volume"]["low"] = scaled(volume)
        bar["first_trade_id"] = bar["last_trade_id"] = position
        bar["trade_count"] = 1
        bar["exchange"] = 2
        seconds = np.concatenate([seconds, bar])
    table = to_table(minutes := merged(seconds), np.zeros(len(minutes), dtype=np.bool_))
    expected = bars(market_data, day, "minute")
    assert table.num_rows == len(expected) > 1_000
    for row, (ms, *numbers) in zip(table.to_pylist(), expected, strict=True):
        assert row["start"].timestamp() * 1000 == int(ms)
        found = [row[name] for name in ("open", "high", "low", "close", "volume")]
        assert found == [Decimal(number) for number in numbers]
