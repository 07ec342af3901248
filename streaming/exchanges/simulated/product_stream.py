"""One product's live messages, in the order they are sent: book changes, matches, tickers."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from lakehouse.market.time import SECOND_US
from streaming.exchanges.simulated.book import StepBooks, Tops, tops_after, walk_steps
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


@dataclass(frozen=True)
class _Block:
    """The trades of some seconds, and the faults that the plan has for them."""

    market: ProductMarket
    first_second: int
    end_second: int
    trades: Trades
    planned: dict[int, Wish]

    def holds(self, second: int) -> bool:
        return self.first_second <= second < self.end_second

    @cached_property
    def tops(self) -> Tops:
        return tops_after(self.market, self.trades)


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
        self._blocks: list[_Block] = []
        self._books: dict[int, StepBooks] = {}

    def pieces(self, start_us: int, end_us: int, wanted: int, skew_us: int) -> Pieces:
        """Return what happens from `start_us` to before `end_us`, all within one second.

        Args:
            start_us: µs UTC; calls go forward in time.
            end_us: µs UTC.
            wanted: the channels to make, as bits.
            skew_us: what the exchange's clock is wrong by.
        """
        block = self._block(start_us // SECOND_US)
        times_us = block.trades["event_us"]
        low, high = times_us.searchsorted([start_us, end_us]).tolist()
        of_trades = self._of_trades(block, low, high, wanted, skew_us) if high > low else []
        if not wanted & LEVEL2:
            return [piece for pieces in of_trades for piece in pieces]
        result: Pieces = []
        place = low
        for step in walk_steps(start_us, end_us):
            until = int(times_us.searchsorted(step * STEP_US))
            for pieces in of_trades[place - low : until - low]:
                result += pieces
            place = until
            changes = self._books_of(step // STEPS).changes(step)
            if changes:
                result.append((LEVEL2, wire(self.frames.l2update(changes, step * STEP_US + skew_us))))
        for pieces in of_trades[place - low :]:
            result += pieces
        return result

    def _of_trades(self, block: _Block, low: int, high: int, wanted: int, skew_us: int) -> list[Pieces]:
        """Return the frames of each trade from place `low` to before `high`."""
        result: list[Pieces] = [[] for _ in range(high - low)]
        hidden = set[int]()
        if wanted & MATCHES:
            trades = block.trades[low:high]
            payloads = self.frames.matches(trades)
            delivered = self._delivery.deliver(
                trades["trade_id"].tolist(), trades["event_us"].tolist(), payloads, block.planned
            )
            if delivered is None:
                result = [[(MATCHES, wire(payload))] for payload in payloads]
            else:
                result = [[(MATCHES, frame) for frame in one.frames] for one in delivered]
                hidden = {place for place, one in enumerate(delivered) if not one.ticker}
        if wanted & TICKER:
            for place, frame in self._tickers(block, low, high, skew_us):
                if place not in hidden:
                    result[place].append((TICKER, frame))
        return result

    def _tickers(self, block: _Block, low: int, high: int, skew_us: int) -> list[tuple[int, bytes]]:
        """Return a ticker for the last trade of each order, with its place counted from `low`."""
        orders = block.trades["order"][low : high + 1]
        # An order never spans two slices: its trades share one microsecond.
        last = np.append(orders[1:] != orders[:-1], True)[: high - low]
        places = np.flatnonzero(last)
        tops = Tops(*(column[low + places] for column in block.tops))
        payloads = self.frames.tickers(block.trades[low + places], tops, skew_us)
        return [(place, wire(payload)) for place, payload in zip(places.tolist(), payloads, strict=True)]

    def prepare(self, second: int, wanted: int) -> bool:
        """Make what a coming second needs, so that nobody waits for it then.

        Args:
            second: the second after that of the last `pieces`.
            wanted: the channels, as bits.

        Returns:
            Whether there was something to make.
        """
        if any(block.holds(second) for block in self._blocks) and (
            second in self._books or not wanted & LEVEL2
        ):
            return False
        block = self._block(second)
        if wanted & TICKER:
            _ = block.tops  # kept once it is made
        if wanted & LEVEL2:
            self._books_of(second)
        return True

    def _block(self, second: int) -> _Block:
        """Return the trades around a second; this second's and the next one's are kept."""
        for block in self._blocks:
            if block.holds(second):
                return block
        end = second + self._block_seconds
        trades = self._market.seconds(second, end)
        planned = self._faults.planned(self._market.model.product, trades["trade_id"])
        block = _Block(self._market, second, end, trades, planned)
        self._blocks = [*self._blocks[-1:], block]
        return block

    def _books_of(self, second: int) -> StepBooks:
        """Return the books of a second's steps, and of the step before them."""
        books = self._books.get(second)
        if books is None:
            block = self._block(second)
            before = second - 1
            trades = block.trades
            if second == block.first_second:
                trades = np.concatenate((self._market.seconds(before, second), trades))
            low, high = trades["event_us"].searchsorted([before * SECOND_US, (second + 1) * SECOND_US])
            books = StepBooks(self._market, second * STEPS - 1, STEPS + 1, trades[low:high])
            self._books = dict([*self._books.items()][-1:]) | {second: books}
        return books
