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

CANDLES_1M: Final = Table(
    "candles_1m",
    "paimon",
    "One-minute candles of the minutes in which there was a trade.",
    pa.schema(
        [
            _PRODUCT,
            _DAY,
            _column("start", TIME, "First microsecond of the minute."),
            _column("open", PRICE, "Price of the trade with the lowest trade_id."),
            _column("high", PRICE, "Highest price."),
            _column("low", PRICE, "Lowest price."),
            _column("close", PRICE, "Price of the trade with the highest trade_id."),
            _column("volume", VOLUME, "Sum of sizes."),
            _column("quote_volume", QUOTE_VOLUME, "Sum of price x size, exact; / volume is the VWAP."),
            _column("taker_buy_volume", VOLUME, "Sum of the sizes that takers bought."),
            _column("taker_sell_volume", VOLUME, "Sum of the sizes that takers sold."),
            _column("trade_count", pa.int64(), "Number of trades."),
            _column("first_trade_id", pa.int64(), "Lowest trade_id."),
            _column("last_trade_id", pa.int64(), "Highest trade_id."),
            _column("is_complete", pa.bool_(), "No id is missing in the minute or at either edge of it."),
            _column("revision", pa.int64(), "Number of its trades that came in after the minute was over."),
            _EXCHANGE,
            _column("recorded_at", TIME, "When the newest of its trades became durable."),
        ]
    ),
    ("product", "start"),
    ("day", "product"),
)

TABLES: Final = {table.name: table for table in (TRADES, QUOTES, BOOK, GAPS, QUARANTINE, INTAKE, CANDLES_1M)}
