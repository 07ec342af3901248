"""One product's trades: which are new, which are late, which are missing; new ones go to the outbox.

`accept` is the hottest code of the feed, so it does by hand what would be nicer in small pieces.
"""

import struct
from collections.abc import Callable
from typing import Final

from lakehouse.market.exact import ONE
from lakehouse.market.quarantine import Reason, RefusedError
from lakehouse.market.time import DAY_US, EARLIEST_US, MINUTE_US, minute_start_us
from lakehouse.market.trade import (
    TRADE_RECORD_FORMAT,
    TRADE_RECORD_VERSION,
    Exchange,
    Lateness,
    Source,
    Trade,
)
from lakehouse.market.trade_ids import TradeIds
from streaming.feed.intake import Intake, Tally
from streaming.feed.trade_gaps import TradeGaps

AMOUNT_LIMIT: Final = 10**12 * ONE * ONE
"""Price × size, both scaled, stays below this, so that 128-bit sums can't overflow."""

AHEAD_US: Final = DAY_US
"""How far an event may be ahead of the receiver's clock."""

# Plain integers: looking a member of an enumeration up costs more than all else that is done with it.
_IN_TIME, _LATE, _TOO_LATE = map(int, Lateness)

_pack = struct.Struct(TRADE_RECORD_FORMAT).pack


def check_time(event_us: int, received_us: int, product: str, kind: str) -> None:
    """Refuse an event before 2009 or more than a day ahead of the receiver's clock.

    Raises:
        RefusedError: it is.
    """
    if not EARLIEST_US <= event_us <= received_us + AHEAD_US:
        detail = f"{event_us} µs is before 2009 or more than a day ahead of the receipt at {received_us}"
        raise RefusedError(Reason.BAD_TIME, detail, product, kind)


class TradeDesk:
    """Takes one product's trades, from the socket and from fills, in any order.

    Args:
        exchange, product: for the records.
        ids: the trades known already; shared with `gaps`.
        gaps: told about every id that is out of the row.
        newest_event_us: the latest trade time accepted, 0 for none.
        last_event_us: the time of the trade with the highest id, 0 for none.
        lateness_us: how long after its minute's end a trade still counts in the live candle.
        intake: the counts.
        publish: takes a `TRADE_RECORD`.
    """

    __slots__ = (
        "_exchange",
        "_gaps",
        "_ids",
        "_intake",
        "_lateness_us",
        "_minute_us",
        "_name",
        "_next_id",
        "_publish",
        "_tally",
        "_until_us",
        "last_event_us",
        "newest_event_us",
        "product",
    )

    def __init__(
        self,
        exchange: Exchange,
        product: str,
        *,
        ids: TradeIds,
        gaps: TradeGaps,
        newest_event_us: int,
        last_event_us: int,
        lateness_us: int,
        intake: Intake,
        publish: Callable[[bytes], None],
    ) -> None:
        self.product = product
        self.newest_event_us = newest_event_us
        self.last_event_us = last_event_us
        self._exchange = int(exchange)
        self._name = product.encode()
        self._ids = ids
        self._gaps = gaps
        self._lateness_us = lateness_us
        self._intake = intake
        self._publish = publish
        self._next_id = -1 if ids.highest is None else ids.highest + 1
        self._tally = Tally()
        self.recount()

    def recount(self) -> None:
        """Ask for the current tally again, as has to be done after the counts were published."""
        self._minute_us = minute_start_us(self.newest_event_us)
        self._until_us = self._minute_us + MINUTE_US
        self._tally = self._intake.tally(self.product, self._minute_us // DAY_US, "trade")

    def accept(self, trade: Trade, received_us: int, source: Source) -> bool:
        """Take a trade: new, or a duplicate.

        Returns:
            whether a gap may have been noticed or narrowed.

        Raises:
            RefusedError: its time or its amount is implausible. It isn't counted then.
        """
        event_us = trade.event_us
        if not EARLIEST_US <= event_us <= received_us + AHEAD_US:
            check_time(event_us, received_us, self.product, "trade")
        if trade.price * trade.size >= AMOUNT_LIMIT:
            raise RefusedError(
                Reason.BAD_NUMBER, f"price × size is not below {AMOUNT_LIMIT}", self.product, "trade"
            )
        if self._minute_us <= event_us < self._until_us:
            tally = self._tally
        else:
            tally = self._intake.tally(self.product, event_us // DAY_US, "trade")
        tally.received += 1
        trade_id = trade.trade_id
        out_of_row = trade_id != self._next_id
        if out_of_row:
            if trade_id in self._ids:
                tally.duplicates += 1
                return False
            out_of_row = self._gaps.stepped(trade_id, event_us, self.last_event_us, received_us)
        self._ids.add(trade_id)
        if trade_id >= self._next_id:
            self._next_id = trade_id + 1
            self.last_event_us = event_us
        tally.accepted += 1
        lateness = _IN_TIME
        if event_us < self._minute_us:
            tally.late += 1
            end_us = minute_start_us(event_us) + MINUTE_US
            lateness = _LATE if end_us > self.newest_event_us - self._lateness_us else _TOO_LATE
        elif event_us > self.newest_event_us:
            self.newest_event_us = event_us
            if event_us >= self._until_us:
                self.recount()
        self._publish(
            _pack(
                self._name,
                trade_id,
                trade.price,
                trade.size,
                event_us,
                received_us,
                trade.taker_side,
                source,
                self._exchange,
                lateness,
                TRADE_RECORD_VERSION,
            )
        )
        return out_of_row
