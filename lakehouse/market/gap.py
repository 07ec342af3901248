"""A gap: trades the exchange made and we don't have."""

from enum import StrEnum

import msgspec

from lakehouse.market.trade import Exchange


class GapStatus(StrEnum):
    """What is known of a range of missing trade ids. The latest row of an id decides."""

    FOUND = "found"
    FILLED = "filled"
    UNFILLABLE = "unfillable"
    """The exchange was asked and does not have them, or there is nobody to ask (a recording)."""


class FoundBy(StrEnum):
    """What showed the gap."""

    TRADE_ID = "trade_id"
    HEARTBEAT = "heartbeat"
    SEAL = "seal"


class Gap(msgspec.Struct, frozen=True):
    """A range of trade ids, both ends included, and what is known of it; times in µs UTC.

    `after_us` and `before_us` bound when the missing trades happened: the event times of the trades
    around the gap (0 where unknown).
    """

    exchange: Exchange
    product: str
    first_trade_id: int
    last_trade_id: int
    status: GapStatus
    found_by: FoundBy
    after_us: int
    before_us: int
    noticed_us: int
    detail: str = ""
