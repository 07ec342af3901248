"""Missing trades of one product: noticed, confirmed after a grace, filled or given up.

A gap is a hole in the ids we know, whatever the order they came in. It is *noticed* when an id is skipped
or a heartbeat is ahead; it is *found*, with a row in `gaps`, when it is still there after `GRACE_US`,
because a reordered trade is not a missing one. Every later row narrows it down.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from lakehouse.market.gap import FoundBy, Gap, GapStatus
from lakehouse.market.time import SECOND_US
from lakehouse.market.trade import Exchange
from lakehouse.market.trade_ids import TradeIds

GRACE_US: Final = SECOND_US
"""How long a skipped id may still come in before it counts as missing, by the receiver's clock."""

LONGEST_FILL: Final = 500_000
"""Longest gap the feed fills itself: some ten minutes of asking. The sealing of a day fills longer ones."""

_ROWS_EVERY_US: Final = SECOND_US
"""A gap that closes trade by trade gets a row no more often than this."""

NEVER: Final = 2**63


class FillGap(NamedTuple):
    """A request: fetch these trades, both ends included."""

    product: str
    first_trade_id: int
    last_trade_id: int


class Hole(msgspec.Struct):
    """Ids that are missing; `confirmed` once there is a `found` row."""

    first: int
    last: int
    found_by: FoundBy
    after_us: int
    before_us: int
    noticed_us: int
    confirmed: bool = False
    given_up: bool = False


class GapsState(msgspec.Struct):
    """What has to be known of a product's gaps to go on after a restart."""

    holes: list[Hole] = []
    touched: bool = False
    rows_from_us: int = 0
    started_at: int | None = None


class TradeGaps:
    """The gaps of one product. `ids` is shared with whoever adds to it.

    Args:
        exchange, product: for the rows.
        ids: the known trades.
        publish: takes a `Gap` as msgpack.
        fillable: whether there is an exchange to ask.
        state: what an earlier run left.
    """

    def __init__(
        self,
        exchange: Exchange,
        product: str,
        ids: TradeIds,
        publish: Callable[[bytes], None],
        *,
        fillable: bool,
        state: GapsState,
    ) -> None:
        self._exchange = exchange
        self._product = product
        self._ids = ids
        self._publish = publish
        self._fillable = fillable
        self._noticed = TradeIds()
        for hole in state.holes:
            self._noticed.add_range(hole.first, hole.last)
        self._holes = list(state.holes)
        self._started_at = state.started_at  # what a heartbeat said before the first trade
        self._touched = state.touched
        self._rows_from_us = state.rows_from_us
        self.found = 0
        """Gaps found since the start of this run."""

    @property
    def state(self) -> GapsState:
        """What the next run has to know."""
        return GapsState(self._holes, self._touched, self._rows_from_us, self._started_at)

    @property
    def open(self) -> int:
        """How many gaps are found and not filled."""
        return sum(hole.confirmed for hole in self._holes)

    @property
    def due_us(self) -> int:
        """When `settle` has something to do next, by the receiver's clock; `NEVER` for nothing."""
        times = [hole.noticed_us + GRACE_US for hole in self._holes if not hole.confirmed]
        if self._may_close:
            times.append(self._rows_from_us)
        return min(times, default=NEVER)

    @property
    def _may_close(self) -> bool:
        """Whether some hole may be smaller now. One beyond the highest id closes without a step."""
        ahead = FoundBy.HEARTBEAT
        return self._touched or any(hole.confirmed and hole.found_by is ahead for hole in self._holes)

    def stepped(self, trade_id: int, event_us: int, last_event_us: int, received_us: int) -> bool:
        """Take notice of a new id that doesn't follow the highest one; call it before adding the id.

        Args:
            trade_id: the new id.
            event_us: its time.
            last_event_us: the time of the trade with the highest id so far, 0 where there is none.
            received_us: the receiver's clock.

        Returns:
            whether `due_us` may have changed.
        """
        highest, lowest = self._ids.highest, self._ids.lowest
        if highest is None or lowest is None:
            highest = self._started_at
            if highest is not None and trade_id > highest + 1:
                self._notice(highest + 1, trade_id - 1, FoundBy.TRADE_ID, (0, event_us), received_us)
        elif trade_id > highest:
            times = (last_event_us, event_us)
            self._notice(highest + 1, trade_id - 1, FoundBy.TRADE_ID, times, received_us)
            self._touched = bool(self._holes)  # a heartbeat's hole may hold this id
        elif trade_id < lowest:
            self._notice(trade_id + 1, lowest - 1, FoundBy.TRADE_ID, (event_us, 0), received_us)
        else:
            self._touched = bool(self._holes)
        return bool(self._holes)

    def heard(self, last_trade_id: int, event_us: int, last_event_us: int, received_us: int) -> bool:
        """Take notice of a heartbeat; the arguments and the result are those of `stepped`."""
        highest = self._ids.highest
        if highest is None:
            highest = self._started_at
            if highest is None:
                self._started_at = last_trade_id
                return False
        if last_trade_id <= highest:
            return False
        times = (last_event_us, event_us)
        self._notice(highest + 1, last_trade_id, FoundBy.HEARTBEAT, times, received_us)
        return True

    def _notice(
        self, first: int, last: int, found_by: FoundBy, times: tuple[int, int], received_us: int
    ) -> None:
        if last < first:
            return
        for start, end in self._noticed.missing_between(first, last):
            self._holes.append(Hole(start, end, found_by, *times, received_us))
        self._noticed.add_range(first, last)

    def settle(self, now_us: int, *, at_once: bool = False) -> list[FillGap]:
        """Confirm the holes whose grace is over, record what was filled, and return what to fetch.

        Args:
            now_us: the receiver's clock.
            at_once: don't wait for anything: the feed is at its end.
        """
        requests: list[FillGap] = []
        if at_once or (self._may_close and now_us >= self._rows_from_us):
            self._narrow(now_us)
        for hole in [hole for hole in self._holes if not hole.confirmed]:
            if at_once or now_us >= hole.noticed_us + GRACE_US:
                self._holes.remove(hole)
                for first, last in self._ids.missing_between(hole.first, hole.last):
                    requests += self._confirm(
                        msgspec.structs.replace(hole, first=first, last=last, confirmed=True), now_us
                    )
        return requests

    def resume(self) -> list[FillGap]:
        """Return what is still to be fetched for the gaps an earlier run left open."""
        return [
            FillGap(self._product, first, last)
            for hole in self._holes
            if hole.confirmed and not hole.given_up and hole.last - hole.first < LONGEST_FILL
            for first, last in self._ids.missing_between(hole.first, hole.last)
        ]

    def asked(self, request: FillGap, now_us: int) -> None:
        """Give up what is still missing after the exchange was asked for all of it."""
        self._narrow(now_us)
        for hole in self._holes:
            inside = request.first_trade_id <= hole.first and hole.last <= request.last_trade_id
            if inside and hole.confirmed and not hole.given_up:
                hole.given_up = True
                self._row(hole, GapStatus.UNFILLABLE, "the exchange doesn't have them", now_us)

    def _confirm(self, hole: Hole, now_us: int) -> list[FillGap]:
        self.found += 1
        self._holes.append(hole)
        too_long = self._fillable and hole.last - hole.first >= LONGEST_FILL
        detail = "too long for the feed: sealing its days fills it" if too_long else ""
        self._row(hole, GapStatus.FOUND, detail, now_us)
        if self._fillable:
            return [] if too_long else [FillGap(self._product, hole.first, hole.last)]
        hole.given_up = True
        self._row(hole, GapStatus.UNFILLABLE, "a recording can't be asked", now_us)
        return []

    def _narrow(self, now_us: int) -> None:
        """Record the parts of open gaps that are known by now, and keep the rest."""
        self._touched = False
        self._rows_from_us = now_us + _ROWS_EVERY_US
        remaining: list[Hole] = []
        for hole in self._holes:
            missing = self._ids.missing_between(hole.first, hole.last)
            if missing == [(hole.first, hole.last)]:
                remaining.append(hole)
                continue
            rest = [msgspec.structs.replace(hole, first=first, last=last) for first, last in missing]
            remaining += rest
            if hole.confirmed:
                position = hole.first
                for first, last in [*missing, (hole.last + 1, hole.last + 1)]:
                    if first > position:
                        part = msgspec.structs.replace(hole, first=position, last=first - 1)
                        self._row(part, GapStatus.FILLED, "", now_us)
                    position = last + 1
        self._holes = remaining

    def _row(self, hole: Hole, status: GapStatus, detail: str, now_us: int) -> None:
        gap = Gap(
            exchange=self._exchange,
            product=self._product,
            first_trade_id=hole.first,
            last_trade_id=hole.last,
            status=status,
            found_by=hole.found_by,
            after_us=hole.after_us,
            before_us=hole.before_us,
            noticed_us=now_us,
            detail=detail,
        )
        self._publish(msgspec.msgpack.encode(gap))
