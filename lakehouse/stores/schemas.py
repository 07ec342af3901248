"""What each table holds: columns with their meaning, keys and partitions.

One definition serves Iceberg, Paimon, the checks and Dagster's column schema. All times are UTC
timestamps in microseconds; prices and sizes are `DECIMAL(18, 8)`, sums of them wider.
"""

from dataclasses import dataclass
from typing import Final, Literal

import pyarrow as pa

PRICE: Final = pa.decimal128(18, 8)
VOLUME: Final = pa.decimal128(38, 8)
QUOTE_VOLUME: Final = pa.decimal128(38, 16)
TIME: Final = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Table:
    """A table: its name as `lakehouse sql` shows it, its store, its columns, what identifies a row."""

    name: str
    store: Literal["iceberg", "paimon"]
    description: str
    schema: pa.Schema
    key: tuple[str, ...]
    partition_by: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...] = ()
    """Columns that had another name in an earlier version, as (old, new): a home's tables follow."""
    of_earlier_rows: tuple[tuple[str, str], ...] = ()
    """Texts that rows of an earlier version, which lack the column, are read with, as (column, text).
    For tables in Paimon."""


def _column(name: str, kind: pa.DataType, meaning: str, *, optional: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=optional, metadata={"description": meaning})


_PRODUCT = _column("product", pa.string(), "What is traded, such as BTC-USD.")
_DAY = _column("day", pa.date32(), "UTC day of the event.")
_EXCHANGE = _column("exchange", pa.string(), "simulated, coinbase or binance.")
_EVENT_TIME = _column("event_time", TIME, "When it happened, by the exchange's clock.")
_RECEIVED_AT = _column("received_at", TIME, "When it arrived, by the receiver's clock.")
_RECORDED_AT = _column("recorded_at", TIME, "When it became durable in the log.")
_SPINE = (
    _column("spine_partition", pa.int32(), "Partition of the log it came through; -1 for a backfill."),
    _column("spine_offset", pa.int64(), "Its offset there; -1 for a backfill."),
)

TRADES: Final = Table(
    "trades",
    "iceberg",
    "Every accepted trade, once.",
    pa.schema(
        [
            _PRODUCT,
            _DAY,
            _column("trade_id", pa.int64(), "The exchange's number of the trade, contiguous per product."),
            _EVENT_TIME,
            _column("price", PRICE, "Price in the quote currency."),
            _column("size", PRICE, "Size in the base currency."),
            _column("taker_side", pa.string(), "buy: the taker lifted the ask; sell: it hit the bid."),
            _column("late", pa.bool_(), "True when its minute was over as it came in."),
            _column("source", pa.string(), "feed, rest, recording or backfill."),
            _EXCHANGE,
            _RECEIVED_AT,
            _RECORDED_AT,
            *_SPINE,
        ]
    ),
    ("product", "trade_id"),
    ("day", "product"),
)

QUOTES: Final = Table(
    "quotes",
    "iceberg",
    "Best bid and ask at each change.",
    pa.schema(
        [
            _PRODUCT,
            _DAY,
            _EVENT_TIME,
            _column("update_id", pa.int64(), "The exchange's number of this state; 0 where it has none."),
            _column("bid", PRICE, "Best bid."),
            _column("bid_size", PRICE, "Size at the best bid."),
            _column("ask", PRICE, "Best ask."),
            _column("ask_size", PRICE, "Size at the best ask."),
            _column("spread", PRICE, "ask - bid."),
            _column("mid", pa.decimal128(20, 9), "(bid + ask) / 2, exact."),
            _column(
                "imbalance",
                pa.decimal128(9, 8),
                "(bid volume - ask volume) / their sum over the five best levels; empty from a ticker.",
                optional=True,
            ),
            _column("source", pa.string(), "book: top of the maintained book; ticker: the exchange's own."),
            _EXCHANGE,
            _RECEIVED_AT,
            _RECORDED_AT,
            *_SPINE,
        ]
    ),
    ("spine_partition", "spine_offset"),
    ("day", "product"),
)

BOOK: Final = Table(
    "book",
    "iceberg",
    "Every level of every book snapshot and update, in the order of the log.",
    pa.schema(
        [
            _PRODUCT,
            _DAY,
            _EVENT_TIME,
            _column("kind", pa.string(), "snapshot: replaces the book; update: changes levels."),
            _column("first_update_id", pa.int64(), "First update of the frame; 0 where there are none."),
            _column("last_update_id", pa.int64(), "Last update of the frame; 0 where there are none."),
            _column("level", pa.int32(), "Position of the level in its frame."),
            _column("side", pa.string(), "bid or ask."),
            _column("price", PRICE, "Price of the level."),
            _column("size", PRICE, "New size of the level; 0 removes it."),
            _EXCHANGE,
            _RECEIVED_AT,
            _RECORDED_AT,
            *_SPINE,
        ]
    ),
    ("spine_partition", "spine_offset", "level"),
    ("day", "product"),
)

GAPS: Final = Table(
    "gaps",
    "iceberg",
    "Missing trades as they were found, filled, or given up; the latest row of an id decides.",
    pa.schema(
        [
            _PRODUCT,
            _DAY,
            _column("first_trade_id", pa.int64(), "First id of the range."),
            _column("last_trade_id", pa.int64(), "Last id of the range."),
            _column("status", pa.string(), "found, filled or unfillable."),
            _column("found_by", pa.string(), "trade_id, heartbeat or seal."),
            _column("after", TIME, "Time of the trade before the range.", optional=True),
            _column("before", TIME, "Time of the trade after the range.", optional=True),
            _column("detail", pa.string(), "For a person."),
            _EXCHANGE,
            _column("noticed_at", TIME, "When it was noticed, by our clock."),
            _RECORDED_AT,
            *_SPINE,
        ]
    ),
    ("spine_partition", "spine_offset"),
    ("day",),
)

QUARANTINE: Final = Table(
    "quarantine",
    "iceberg",
    "Every refused input with its reason and its raw bytes.",
    pa.schema(
        [
            _DAY,
            _column("product", pa.string(), "The product concerned; empty where none could be read."),
            _column("reason", pa.string(), "Why it was refused: one of lakehouse.market.quarantine.Reason."),
            _column("detail", pa.string(), "For a person."),
            _column("frame", pa.binary(), "The raw bytes."),
            _EXCHANGE,
            _RECEIVED_AT,
            _RECORDED_AT,
            *_SPINE,
        ]
    ),
    ("spine_partition", "spine_offset"),
    ("day",),
)

INTAKE: Final = Table(
    "intake",
    "iceberg",
    "How many inputs ended how, by batch; received = accepted + duplicates + quarantined.",
    pa.schema(
        [
            _PRODUCT,
            _DAY,
            _column("kind", pa.string(), "trade, ticker, book, heartbeat, control or unknown."),
            _column("received", pa.int64(), "Inputs that came in."),
            _column("accepted", pa.int64(), "Inputs that were new and good."),
            _column("duplicates", pa.int64(), "Inputs that were already known."),
            _column("quarantined", pa.int64(), "Inputs that were refused."),
            _column("late", pa.int64(), "Accepted trades whose minute was over."),
            _EXCHANGE,
            _RECORDED_AT,
            *_SPINE,
        ]
    ),
    ("spine_partition", "spine_offset"),
    ("day",),
)


NOT_TOLD: Final = (
    *("quote_volume", "taker_buy_volume", "taker_sell_volume"),
    *("trade_count", "first_trade_id", "last_trade_id"),
)
"""Columns of candles that are empty where `source` is `exchange`, and nowhere else."""

OF_TRADES: Final = "trades"
OF_EXCHANGE: Final = "exchange"
"""What `source` says of a candle that is known from its trades, and of one known from the exchange alone."""


def _candles(name: str, description: str, unit: str, is_complete: str, source: str) -> Table:
    def not_told(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
        return _column(name, kind, f"{meaning} Empty where the source is exchange.", optional=True)

    return Table(
        name,
        "paimon",
        description,
        pa.schema(
            [
                _PRODUCT,
                _DAY,
                _column("start", TIME, f"First microsecond of the {unit}."),
                _column("open", PRICE, "Price of the trade with the lowest trade_id."),
                _column("high", PRICE, "Highest price."),
                _column("low", PRICE, "Lowest price."),
                _column("close", PRICE, "Price of the trade with the highest trade_id."),
                _column("volume", VOLUME, "Sum of sizes."),
                not_told("quote_volume", QUOTE_VOLUME, "Sum of price x size, exact; / volume is the VWAP."),
                not_told("taker_buy_volume", VOLUME, "Sum of the sizes that takers bought."),
                not_told("taker_sell_volume", VOLUME, "Sum of the sizes that takers sold."),
                not_told("trade_count", pa.int64(), "Number of trades."),
                not_told("first_trade_id", pa.int64(), "Lowest trade_id."),
                not_told("last_trade_id", pa.int64(), "Highest trade_id."),
                _column("is_complete", pa.bool_(), f"{is_complete} False where the source is exchange."),
                _column(
                    "revision", pa.int64(), "Number of its trades that came in after the minute was over."
                ),
                _column("source", pa.string(), source, optional=True),
                _EXCHANGE,
                _column("recorded_at", TIME, "When the newest of what it is made from became durable."),
            ]
        ),
        ("product", "start"),
        ("day", "product"),
        # Before there were others, every candle was made of trades.
        of_earlier_rows=(("source", OF_TRADES),),
    )


CANDLES_1M: Final = _candles(
    "candles_1m",
    "One-minute candles of the minutes in which there was a trade.",
    "minute",
    "No id is missing in the minute or at either edge of it.",
    "trades, or exchange: the exchange's own, from `exchange_candles`, on a day without archived trades.",
)

_ROLLED_UP = (
    "All its minutes are complete, and no id is missing between them.",
    "exchange where that is the source of one of its minutes, else trades.",
)

CANDLES_1H: Final = _candles(
    "candles_1h", "Candles of the hours of days that are over, from `candles_1m`.", "hour", *_ROLLED_UP
)

CANDLES_1D: Final = _candles(
    "candles_1d", "Candles of days that are over, from `candles_1m`.", "day", *_ROLLED_UP
)

EXCHANGE_CANDLES: Final = Table(
    "exchange_candles",
    "iceberg",
    "The exchange's own one-minute candles of past days, as fetched over REST.",
    pa.schema(
        [
            _PRODUCT,
            _DAY,
            _column("start", TIME, "First microsecond of the minute."),
            _column("open", PRICE, "Price of the first trade."),
            _column("high", PRICE, "Highest price."),
            _column("low", PRICE, "Lowest price."),
            _column("close", PRICE, "Price of the last trade."),
            _column("volume", VOLUME, "Sum of sizes, to eight digits; Coinbase adds them in floating point."),
            _EXCHANGE,
            _column("recorded_at", TIME, "When it was fetched."),
        ]
    ),
    ("product", "start"),
    ("day", "product"),
)

_DAILY_RECORDED_AT = _column(
    "recorded_at", TIME, "When the newest of the rows it is made from became durable."
)


def _figure(name: str, meaning: str) -> pa.Field:
    return _column(name, pa.float64(), meaning, optional=True)


METRICS_DAILY: Final = Table(
    "metrics_daily",
    "iceberg",
    "Returns and risk of each day that is over; a figure is empty where a day that it needs is not known.",
    pa.schema(
        [
            _PRODUCT,
            _DAY,
            _column("close", PRICE, "Price of the day's last trade."),
            _column(
                "vwap",
                QUOTE_VOLUME,
                "quote_volume / volume, to 16 digits; empty without either.",
                optional=True,
            ),
            _column("volume", VOLUME, "Sum of sizes."),
            _column(
                "quote_volume",
                QUOTE_VOLUME,
                "Sum of price x size, exact; empty where only the exchange's candles are known.",
                optional=True,
            ),
            _column(
                "trade_count",
                pa.int64(),
                "Number of trades; empty where only the exchange's candles are known.",
                optional=True,
            ),
            _column("is_complete", pa.bool_(), "No trade of the day is missing."),
            _figure("simple_return", "close / the day before's close - 1."),
            _figure("log_return", "Natural logarithm of close / the day before's close."),
            _figure(
                "realised_volatility",
                "Root of the sum of the day's squared 5-minute log returns, annualised; empty for a day with "
                "missing trades.",
            ),
            _figure("return_30d", "close / the close 30 days before - 1."),
            _figure("return_90d", "close / the close 90 days before - 1."),
            _figure("volatility_30d", "Standard deviation of the last 30 daily log returns, annualised."),
            _figure("volatility_90d", "Standard deviation of the last 90 daily log returns, annualised."),
            _figure(
                "sharpe_30d", "Mean / standard deviation of the last 30 daily simple returns, annualised."
            ),
            _figure(
                "sharpe_90d", "Mean / standard deviation of the last 90 daily simple returns, annualised."
            ),
            _EXCHANGE,
            _DAILY_RECORDED_AT,
        ]
    ),
    ("product", "day"),
    ("product",),
)

DEPTH_BANDS_BPS: Final = (10, 100)
"""From the mid price: a tenth of a percent is what one order meets, one percent the usual measure."""

LIQUIDITY: Final = Table(
    "liquidity",
    "iceberg",
    "What it cost to trade on each day with quotes: means over the time that each quote held, and of the "
    "book's depth.",
    pa.schema(
        [
            _PRODUCT,
            _DAY,
            _column("quotes", pa.int64(), "Number of quotes."),
            _column("covered", pa.float64(), "Share of the day in which a quote held, 0 to 1."),
            _figure("spread_bps", "Spread in hundredths of a percent of the mid price."),
            _figure(
                "imbalance",
                "Imbalance of the five best levels, -1 to 1; empty where only a ticker was there.",
            ),
            _figure("bid_depth", "Size at the best bid, in the quote currency."),
            _figure("ask_depth", "Size at the best ask, in the quote currency."),
            _column("book_minutes", pa.int64(), "Minutes at whose end the book was known.", optional=True),
            *(
                _figure(
                    f"{side}_depth_{band}bps",
                    f"What rested on the {side} side within {band / 100:g} % of the mid price, in the quote "
                    "currency: mean over those minutes.",
                )
                for band in DEPTH_BANDS_BPS
                for side in ("bid", "ask")
            ),
            _EXCHANGE,
            _DAILY_RECORDED_AT,
        ]
    ),
    ("product", "day"),
    ("product",),
)

EXCHANGE_HEALTH: Final = Table(
    "exchange_health",
    "iceberg",
    "How well each day was streamed: freshness, silence, and how its inputs ended.",
    pa.schema(
        [
            _PRODUCT,
            _DAY,
            _column("trades", pa.int64(), "Archived trades."),
            _column("streamed", pa.int64(), "Those of them that came through the log, not from a backfill."),
            _figure("freshness_p50", "Median of received_at - event_time of streamed trades, seconds."),
            _figure("freshness_p99", "99th percentile of it, seconds."),
            _figure("freshness_max", "Largest of it, seconds."),
            _figure("longest_silence", "Longest time in which no trade and no quote was received, seconds."),
            _column("gap_ids_found", pa.int64(), "Trades that were found missing."),
            _column("gap_ids_filled", pa.int64(), "Those of them that were filled since."),
            _column("gap_ids_unfillable", pa.int64(), "Those of them that the exchange doesn't have."),
            _column("late", pa.int64(), "Streamed trades whose minute was over as they came in."),
            _column("duplicates", pa.int64(), "Inputs that were already known."),
            _column("quarantined", pa.int64(), "Inputs that were refused."),
            _column(
                "sla_met",
                pa.bool_(),
                "99 % of streamed trades were here within 30 seconds; empty where none was streamed.",
                optional=True,
            ),
            _EXCHANGE,
            _DAILY_RECORDED_AT,
        ]
    ),
    ("product", "day"),
    ("product",),
)

RECONCILIATION: Final = Table(
    "reconciliation",
    "iceberg",
    "Where two accounts of a sealed product-day disagree: a row for each break, none where they agree.",
    pa.schema(
        [
            _PRODUCT,
            _DAY,
            _column("comparison", pa.string(), "Which two accounts were compared, such as archive_candles."),
            _column("kind", pa.string(), "MISSING, DUPLICATE, VALUE_DRIFT or SCHEMA_DRIFT."),
            _column("table_name", pa.string(), "The table that lacks the row, has it twice, or drifted."),
            _column("row_key", pa.string(), "Trade ids, or the start of a candle; empty for a whole table."),
            _column("column_name", pa.string(), "The column that drifted; empty where it is a whole row."),
            _column("expected", pa.string(), "What the account that came first says."),
            _column("found", pa.string(), "What is in its place."),
            _column(
                "amount",
                QUOTE_VOLUME,
                "found - expected, in rows for MISSING and DUPLICATE; empty where it is no number.",
                optional=True,
            ),
            _column("recorded_at", TIME, "When this break was first found."),
        ]
    ),
    ("product", "day", "comparison", "kind", "table_name", "row_key", "column_name"),
    ("product",),
)

REPLAY_CANDLES_1M: Final = Table(
    "replay_candles_1m",
    "paimon",
    "One-minute candles that replays of archived days made, side by side.",
    pa.schema(
        [
            _column(
                "replay_id", pa.string(), "The replay: its day, its speed, a digest of all its settings."
            ),
            *CANDLES_1M.schema,
            _column("trades_snapshot_id", pa.int64(), "The snapshot of trades that was replayed."),
            _column("replayed_at", TIME, "When the replay wrote this candle."),
        ]
    ),
    # In the key and not in the partition: a product's day has a few replays at a time, and what is done with
    # partitions of candles is done with these in the same way.
    ("replay_id", "product", "start"),
    ("day", "product"),
    of_earlier_rows=CANDLES_1M.of_earlier_rows,
)

TABLES: Final = {
    table.name: table
    for table in (
        *(TRADES, QUOTES, BOOK, GAPS, QUARANTINE, INTAKE),
        *(EXCHANGE_CANDLES, CANDLES_1M, CANDLES_1H, CANDLES_1D),
        *(METRICS_DAILY, LIQUIDITY, EXCHANGE_HEALTH),
        *(RECONCILIATION, REPLAY_CANDLES_1M),
    )
}
