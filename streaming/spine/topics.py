"""What flows through the spine, and who reads it."""

from collections.abc import Mapping
from typing import Final

from lakehouse.settings import Settings

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
REPLAY: Final = "replay"
"""`REPLAY_RECORD`s, one a message; several replays share it, each with its number."""
SESSIONS: Final = "sessions"
"""The feed's own checkpoints as msgpack, in partition 0; only the feed reads them."""

TOPICS: Final = (TRADES, QUOTES, BOOK, GAPS, QUARANTINE, INTAKE, REPLAY, SESSIONS)

FED: Final = tuple(topic for topic in TOPICS if topic != REPLAY)
"""What the feed publishes to, and nobody else."""


HOT: Final = "hot"
ARCHIVE: Final = "archive"
CANDLES: Final = "candles"
BRIDGE: Final = "bridge"
FEED: Final = "feed"

GROUPS: Final = (HOT, ARCHIVE, CANDLES, BRIDGE, FEED, REPLAY)
"""Every consumer group there may be; which of them read a topic follows the settings."""


def readers(settings: Settings) -> Mapping[str, tuple[str, ...]]:
    """Return for each topic the consumer groups that read it; retention waits for all of them.

    A group that nobody runs would hold the log for ever, so they follow what is chosen for each tier: with
    the flink engine the market leaves the log through the bridge alone.
    """
    hot = (BRIDGE,) if settings.hot_store_kind == "fluss" else (HOT,)
    embedded = settings.engine_kind == "embedded"
    return {
        TRADES: (*hot, ARCHIVE, CANDLES, FEED) if embedded else (BRIDGE, FEED),
        QUOTES: (*hot, ARCHIVE) if embedded else (BRIDGE,),
        BOOK: (*(group for group in hot if group == BRIDGE), ARCHIVE) if embedded else (BRIDGE,),
        GAPS: (ARCHIVE, FEED),
        QUARANTINE: (ARCHIVE, FEED),
        INTAKE: (ARCHIVE, FEED),
        REPLAY: (REPLAY,),
        SESSIONS: (FEED,),
    }
