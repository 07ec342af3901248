"""One product's live messages, in the order they are sent: book changes, matches, tickers."""

from typing import Final

import numpy as np

from lakehouse.market.time import SECOND_US
from streaming.exchanges.simulated.book import Change, StepBooks, Tops, tops_after, walk_steps
from streaming.exchanges.simulated.delivery import Delivery, Effects, LateMatches
from streaming.exchanges.simulated.faults import Faults, Wish
from streaming.exchanges.simulated.frames import ProductFrames, wire
from streaming.exchanges.simulated.ladder import STEP_US
from streaming.exchanges.simulated.market import STEPS, ProductMarket, Trades
from streaming.exchanges.simulated.subscriptions import Channel

# Plain integers: operations on flags are ten times slower, and this runs for every message.
MATCHES: Final = int(Channel.MATCHES)
TICKER: Final = int(Channel.TICKER)
HEARTBEAT: Final = int(Channel.HEARTBEAT)
LEVEL2: Final = int(Channel.LEVEL2)

_BLOCK_TRADES = 4_000
_LONGEST_BLOCK_SECONDS = 32

Pieces = list[tuple[int, bytes]]
"""WebSocket frames with the channel each belongs to."""


class ProductStream:
    """Makes the messages of one product.

    Args:
        market: the product's trades.
        faults: what to break.
        late: takes the late matches.
        effects: takes faults that concern every connection.
    """

    def __init__(self, market: ProductMarket, faults: Faults, late: LateMatches, effects: Effects) -> None:
        self.frames = ProductFrames(market.model)
        self._market = market
        self._faults = faults
        self._delivery = Delivery(market.model.product, faults, late, effects)
        self._block_seconds = int(np.clip(_BLOCK_TRADES / market.rate, 1, _LONGEST_BLOCK_SECONDS))
        self._first_second = self._end_second = 0
        self._trades: Trades = market.seconds(0, 0)
        self._planned: dict[int, Wish] = {}
        self._tops: Tops | None = None
        self._books: StepBooks | None = None

    def pieces(self, start_us: int, end_us: int, wanted: int, skew_us: int) -> Pieces:
        """Return what happens from `start_us` to before `end_us`, all within one second.

        Args:
            start_us: µs UTC; calls go forward in time.
            end_us: µs UTC.
            wanted: the channels to make, as bits.
            skew_us: what the exchange's clock is wrong by.
        """
        second = start_us // SECOND_US
        if not self._first_second <= second < self._end_second:
            self._load(second)
        low, high = self._trades["event_us"].searchsorted([start_us, end_us]).tolist()
        of_trades = self._of_trades(low, high, wanted, skew_us) if high > low else []
        if not wanted & LEVEL2:
            return [piece for pieces in of_trades for piece in pieces]
        result: Pieces = []
        place = low
        for step in walk_steps(start_us, end_us):
            until = int(self._trades["event_us"].searchsorted(step * STEP_US))
            for pieces in of_trades[place - low : until - low]:
                result += pieces
            place = until
            changes = self._changes(step)
            if changes:
                result.append((LEVEL2, wire(self.frames.l2update(changes, step * STEP_US + skew_us))))
        for pieces in of_trades[place - low :]:
            result += pieces
        return result

    def _of_trades(self, low: int, high: int, wanted: int, skew_us: int) -> list[Pieces]:
        """Return the frames of each trade from place `low` to before `high`."""
        result: list[Pieces] = [[] for _ in range(high - low)]
        hidden = set[int]()
        if wanted & MATCHES:
            trades = self._trades[low:high]
            payloads = self.frames.matches(trades)
            delivered = self._delivery.deliver(
                trades["trade_id"].tolist(), trades["event_us"].tolist(), payloads, self._planned
            )
            if delivered is None:
                result = [[(MATCHES, wire(payload))] for payload in payloads]
            else:
                result = [[(MATCHES, frame) for frame in one.frames] for one in delivered]
                hidden = {place for place, one in enumerate(delivered) if not one.ticker}
        if wanted & TICKER:
            for place, frame in self._tickers(low, high, skew_us):
                if place not in hidden:
                    result[place].append((TICKER, frame))
        return result

    def _tickers(self, low: int, high: int, skew_us: int) -> list[tuple[int, bytes]]:
        """Return a ticker for the last trade of each order, with its place counted from `low`."""
        if self._tops is None:
            self._tops = tops_after(self._market, self._trades)
        orders = self._trades["order"][low : high + 1]
        # An order never spans two slices: its trades share one microsecond.
        last = np.append(orders[1:] != orders[:-1], True)[: high - low]
        places = np.flatnonzero(last)
        tops = Tops(*(column[low + places] for column in self._tops))
        payloads = self.frames.tickers(self._trades[low + places], tops, skew_us)
        return [(place, wire(payload)) for place, payload in zip(places.tolist(), payloads, strict=True)]

    def _changes(self, step: int) -> list[Change]:
        books = self._books
        if books is None or not books.first_step < step <= books.first_step + STEPS:
            books = self._books = self._second_books(step // STEPS)
        return books.changes(step)

    def _second_books(self, second: int) -> StepBooks:
        """Return the books of a second's steps, and of the step before them."""
        before = second - 1
        trades = self._trades
        if before < self._first_second:
            trades = np.concatenate((self._market.seconds(before, second), trades))
        low, high = trades["event_us"].searchsorted([before * SECOND_US, (second + 1) * SECOND_US])
        return StepBooks(self._market, second * STEPS - 1, STEPS + 1, trades[low:high])

    def _load(self, second: int) -> None:
        """Make the trades of the next seconds."""
        self._first_second, self._end_second = second, second + self._block_seconds
        self._trades = self._market.seconds(second, self._end_second)
        self._planned = self._faults.planned(self._market.model.product, self._trades["trade_id"])
        self._tops = self._books = None
