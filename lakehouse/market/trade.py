"""A trade: one execution, identified by (product, trade_id) and by nothing else."""

from enum import IntEnum
from typing import Final

import msgspec
import numpy as np

from lakehouse.market.product import MAX_LENGTH


class Side(IntEnum):
    """The taker's side: `BUY` lifted the ask, `SELL` hit the bid."""

    BUY = 0
    SELL = 1


class Exchange(IntEnum):
    """Where a row comes from. `SIMULATED` is what says in every row that it isn't real."""

    SIMULATED = 1
    COINBASE = 2
    BINANCE = 3


class Source(IntEnum):
    """How a row came in."""

    FEED = 1
    """Over the live socket."""
    REST = 2
    """Fetched by the feed to fill a gap."""
    RECORDING = 3
    """Read from a recording."""
    BACKFILL = 4
    """Fetched by the asset that seals or backfills a day; the spine never carried it."""
    BOOK = 5
    """Quotes only: the top of the maintained book."""
    TICKER = 6
    """Quotes only: the exchange's own ticker, where there is no newer book."""


class Lateness(IntEnum):
    """How a trade's minute stood as the trade came in, by its product's newest trade before it."""

    IN_TIME = 0
    """It wasn't over."""
    LATE = 1
    """It was over: the trade changes a candle that was told before."""
    TOO_LATE = 2
    """It had been over for the lateness horizon: the live candle stays, sealing its day counts it."""


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One trade as the exchange reported it; price and size scaled by 10⁸, time in µs UTC."""

    product: str
    trade_id: int
    price: int
    size: int
    taker_side: Side
    event_us: int


TRADE_RECORD: Final = np.dtype(
    [
        ("product", f"S{MAX_LENGTH}"),
        ("trade_id", "<i8"),
        ("price", "<i8"),
        ("size", "<i8"),
        ("event_us", "<i8"),
        ("received_us", "<i8"),
        ("taker_side", "u1"),
        ("source", "u1"),
        ("exchange", "u1"),
        ("late", "u1"),
        ("version", "<u4"),
    ]
)
"""A trade in the spine: 64 bytes, little-endian, no padding, so that a batch decodes as one array.

`late` is a `Lateness`, decided once, by the feed. `version` is `TRADE_RECORD_VERSION`.
"""

TRADE_RECORD_FORMAT: Final = f"<{MAX_LENGTH}s5q4BI"
"""`TRADE_RECORD` for `struct`."""

TRADE_RECORD_VERSION: Final = 1

REPLAY_RECORD: Final = np.dtype([*TRADE_RECORD.descr, ("recorded_us", "<i8"), ("replay", "<u8")])
"""A replayed trade in the spine: a `TRADE_RECORD` of 64 bytes, when the trade became durable at first (µs
UTC), and the number of the replay it belongs to."""
