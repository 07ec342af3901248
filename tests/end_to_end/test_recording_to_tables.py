"""A real recording through the whole streaming side, by the commands a person types."""

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from binance_recording import raw_frames, write_recording
from typed_commands import output_of

from lakehouse.home import last_run


@pytest.fixture(scope="module")
def recording(market_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "btcusdt.jsonl.zst"
    write_recording(market_data, path)
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def summary(recording: Path, home: Path) -> dict[str, Any]:
    return last_line(output_of(home, "stream", "--feed", f"recording:{recording}", "--drain"))


def last_line(output: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return parsed


def expected_candles(market_data: Path) -> dict[str, dict[str, Any]]:
    """Candles from the raw frames with nothing but dictionaries and decimals."""
    candles: dict[str, dict[str, Any]] = {}
    trades = {}
    for _, frame in raw_frames(market_data):
        data = json.loads(frame).get("data", {})
        if data.get("e") == "trade":
            trades[data["t"]] = data
    for trade_id, data in sorted(trades.items()):
        minute = datetime.fromtimestamp(data["T"] // 60_000 * 60, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        price, size = Decimal(data["p"]), Decimal(data["q"])
        candle = candles.setdefault(
            minute,
            {"open": price, "high": price, "low": price, "volume": Decimal(0), "quote_volume": Decimal(0)}
            | {"trade_count": 0, "first_trade_id": trade_id, "taker_buy_volume": Decimal(0)},
        )
        candle["high"] = max(candle["high"], price)
        candle["low"] = min(candle["low"], price)
        candle["close"] = price
        candle["volume"] += size
        candle["quote_volume"] += price * size
        candle["taker_buy_volume"] += 0 if data["m"] else size
        candle["trade_count"] += 1
        candle["last_trade_id"] = trade_id
    return candles


def test_the_summary_accounts_for_every_input(summary: dict[str, Any]) -> None:
    assert list(summary) == [
        *("received", "accepted", "duplicates", "quarantined"),
        *("trades", "quotes", "book", "candles", "gaps", "seconds"),
    ]
    assert summary["received"] == 41_249
    assert summary["received"] == summary["accepted"] + summary["duplicates"] + summary["quarantined"]
    assert summary["quarantined"] == 0
    assert summary["trades"] == 9_757
    assert summary["gaps"] == 0
    assert summary["quotes"] > 10_000


def test_dagster_offers_the_products_of_the_recording(summary: dict[str, Any], home: Path) -> None:
    run = last_run(home / "data")
    assert run is not None
    assert (run.products, run.namespace) == (("BTC-USDT",), "market")


def test_candles_equal_an_independent_computation(
    summary: dict[str, Any], home: Path, market_data: Path
) -> None:
    columns = (
        "open high low close volume quote_volume taker_buy_volume trade_count first_trade_id last_trade_id"
    )
    output = output_of(
        home,
        *("sql", "--format", "csv"),
        f"SELECT strftime(start, '%Y-%m-%dT%H:%M:%S') AS minute, {columns.replace(' ', ', ')}, is_complete, "
        "revision, product, exchange FROM candles_1m ORDER BY start",
    )
    rows = list(csv.DictReader(io.StringIO(output)))
    expected = expected_candles(market_data)
    assert summary["candles"] == len(rows) == len(expected)
    for row in rows:
        assert row["product"] == "BTC-USDT"
        assert row["exchange"] == "binance"
        assert row["revision"] == "0"
        for column in columns.split():
            assert Decimal(row[column]) == expected[row["minute"]][column], (row["minute"], column)
    # Only the first and the last minute of a recording can't be known to be whole.
    assert [row["is_complete"] for row in rows] == ["false"] + ["true"] * (len(rows) - 2) + ["false"]


def test_the_archive_holds_the_exchanges_own_numbers(
    summary: dict[str, Any], home: Path, market_data: Path
) -> None:
    output = output_of(
        home,
        *("sql", "--format", "json"),
        "SELECT trade_id, price, size, taker_side, epoch_us(event_time) AS event_us FROM trades ORDER BY 1",
    )
    rows = json.loads(output, parse_float=Decimal)
    trades = [json.loads(frame)["data"] for _, frame in raw_frames(market_data) if '"e":"trade"' in frame]
    assert len(rows) == len(trades) == summary["trades"]
    for row, trade in zip(rows, trades, strict=True):
        assert row["trade_id"] == trade["t"]
        assert Decimal(row["price"]) == Decimal(trade["p"])
        assert Decimal(row["size"]) == Decimal(trade["q"])
        assert row["taker_side"] == ("sell" if trade["m"] else "buy")
        assert row["event_us"] == trade["T"] * 1000


def test_the_archived_book_replays_to_the_same_top_as_the_quotes(summary: dict[str, Any], home: Path) -> None:
    """The `book` table alone, replayed with a dictionary, gives every quote that came from the book."""
    levels = json.loads(
        output_of(
            home,
            *("sql", "--format", "json"),
            "SELECT spine_offset, kind, last_update_id, side, price, size FROM book "
            "ORDER BY spine_offset, level",
        ),
        parse_float=Decimal,
    )
    quotes = json.loads(
        output_of(
            home,
            *("sql", "--format", "json"),
            "SELECT update_id, bid, bid_size, ask, ask_size, spread, mid FROM quotes WHERE source = 'book' "
            "ORDER BY spine_offset",
        ),
        parse_float=Decimal,
    )
    tops: dict[int, tuple[Decimal, Decimal, Decimal, Decimal]] = {}
    book: dict[str, dict[Decimal, Decimal]] = {"bid": {}, "ask": {}}
    for _, frame in groupby(levels, key=lambda level: level["spine_offset"]):
        for position, level in enumerate(frame):
            if level["kind"] == "snapshot" and position == 0:
                book = {"bid": {}, "ask": {}}
            side = book[level["side"]]
            price, size = Decimal(level["price"]), Decimal(level["size"])
            if size:
                side[price] = size
            else:
                side.pop(price, None)
        bid, ask = max(book["bid"]), min(book["ask"])
        tops[level["last_update_id"]] = (bid, book["bid"][bid], ask, book["ask"][ask])
    assert len(quotes) > 1_000
    for quote in quotes:
        bid, bid_size, ask, ask_size = (
            Decimal(quote[name]) for name in ("bid", "bid_size", "ask", "ask_size")
        )
        assert (bid, bid_size, ask, ask_size) == tops[quote["update_id"]]
        assert Decimal(quote["spread"]) == ask - bid
        assert Decimal(quote["mid"]) == (bid + ask) / 2


def test_the_same_recording_again_changes_nothing(
    summary: dict[str, Any], recording: Path, home: Path
) -> None:
    question = (
        "SELECT (SELECT count(*) FROM trades) AS t, (SELECT count(*) FROM quotes) AS q, "
        "(SELECT count(*) FROM book) AS b, (SELECT bit_xor(hash(c::VARCHAR)) FROM candles_1m AS c) AS c"
    )
    before = output_of(home, "sql", "--format", "csv", question)
    again = last_line(output_of(home, "stream", "--feed", f"recording:{recording}", "--drain"))
    assert again["received"] == again["accepted"] + again["duplicates"] + again["quarantined"] == 41_249
    for table in ("trades", "quotes", "book", "candles", "gaps"):
        assert again[table] == summary[table]
    assert output_of(home, "sql", "--format", "csv", question) == before
