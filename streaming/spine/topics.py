"""What flows through the spine, and who reads it."""

from typing import Final

TRADES: Final = "trades"
"""`TRADE_RECORD`s, one a message."""
QUOTES: Final = "quotes"
"""`QUOTE_RECORD`s, one a message."""
BOOK: Final = "book"
"""Book snapshots and updates, one frame a message (`lakehouse.market.book.pack`)."""
GAPS: Final = "gaps"
"""`Gap`s as msgpack."""
QUARANTINE: Final = "quarantine"
"""`Refused` inputs as msgpack."""
INTAKE: Final = "intake"
"""`IntakeCount`s as msgpack."""
SESSIONS: Final = "sessions"
"""The feed's own checkpoints as msgpack, in partition 0; only the feed reads them."""

TOPICS: Final = (TRADES, QUOTES, BOOK, GAPS, QUARANTINE, INTAKE, SESSIONS)

HOT: Final = "hot"
ARCHIVE: Final = "archive"
CANDLES: Final = "candles"
FEED: Final = "feed"

READERS: Final = {
    TRADES: (HOT, ARCHIVE, CANDLES, FEED),
    QUOTES: (HOT, ARCHIVE),
    BOOK: (ARCHIVE,),
    GAPS: (ARCHIVE,),
    QUARANTINE: (ARCHIVE, FEED),
    INTAKE: (ARCHIVE, FEED),
    SESSIONS: (FEED,),
}
"""For each topic the consumer groups that read it; retention waits for all of them."""
