"""One product's book and quotes: keeps the book synchronised, and a row for each change of its top.

Where updates are numbered (Binance), they wait until a snapshot fits them: those it already holds are
dropped, the first one applied spans the snapshot's id + 1, and each later one continues where the last
ended; at a break only this product starts over. Where they aren't (Coinbase), the exchange sends a
snapshot first, and a crossed book is the only sign of a miss.

Before a day's first update the whole book goes to the log as a snapshot of our own, so that each day of the
archive can be replayed by itself, however long the connection holds.
"""

import struct
from collections import deque
from collections.abc import Callable
from typing import Final

from lakehouse.market.book import BookKind, pack_book
from lakehouse.market.order_book import OrderBook, Top
from lakehouse.market.quote import NO_IMBALANCE, QUOTE_RECORD_FORMAT, QUOTE_RECORD_VERSION
from lakehouse.market.time import DAY_US
from lakehouse.market.trade import Exchange, Source
from streaming.exchanges.contract import BookSnapshot, BookUpdate, Ticker

MOST_WAITING: Final = 20_000
"""How many updates wait for a snapshot; beyond, the oldest go to the log without one."""

_pack = struct.Struct(QUOTE_RECORD_FORMAT).pack


class BookDesk:
    """Takes one product's snapshots, updates and tickers.

    Args:
        exchange, product: for the rows.
        publish_book: takes book messages.
        publish_quote: takes `QUOTE_RECORD`s.
    """

    def __init__(
        self,
        exchange: Exchange,
        product: str,
        publish_book: Callable[[bytes], None],
        publish_quote: Callable[[bytes], None],
    ) -> None:
        self._exchange = exchange
        self._product = product
        self._name = product.encode()
        self._publish_book = publish_book
        self._publish_quote = publish_quote
        self._waiting: deque[tuple[BookUpdate, int]] = deque()
        self._last_update = 0
        self._last_ticker = 0
        self._day = 0
        self._last_top: Top | None = None
        self._last_quote: tuple[int, int, int, int] | None = None
        self.book = OrderBook()
        self.is_synchronised = False
        self.needs_snapshot = False
        """Whether a snapshot has to be asked for; whoever asks sets it back."""

    @property
    def waits(self) -> bool:
        """Whether updates wait for a snapshot."""
        return bool(self._waiting)

    def fits(self, snapshot: BookSnapshot) -> bool:
        """Tell whether a snapshot continues into the waiting updates, or is newer than all of them."""
        following = (update for update, _ in self._waiting if update.last_update_id > snapshot.update_id)
        first = next(following, None)
        return self.waits and (first is None or first.first_update_id <= snapshot.update_id + 1)

    def spans(self, snapshot: BookSnapshot) -> bool:
        """Tell whether a snapshot lies among the waiting updates: then it is surely this product's."""
        if not self._waiting:
            return False
        first, last = self._waiting[0][0].first_update_id, self._waiting[-1][0].last_update_id
        return first - 1 <= snapshot.update_id <= last

    def snapshot(self, snapshot: BookSnapshot, received_us: int) -> bool:
        """Take a snapshot; return False for one that is known already."""
        numbered = snapshot.update_id > 0
        if numbered and self.is_synchronised and snapshot.update_id <= self._last_update:
            return False
        if numbered and self._waiting and not self.fits(snapshot):
            self.needs_snapshot = True  # older than what waits: another one is needed
            return True
        self.is_synchronised = True
        self.needs_snapshot = False
        self._last_update = snapshot.update_id
        self.book.replace(snapshot.bids, snapshot.asks)
        self._record_whole(snapshot, received_us)
        self._quote(snapshot.event_us or received_us, received_us)
        waiting, self._waiting = self._waiting, deque()
        for update, update_received_us in waiting:
            if update.last_update_id > snapshot.update_id:
                self.update(update, update_received_us)
        return True

    def update(self, update: BookUpdate, received_us: int) -> bool:
        """Take changed levels; return False for an update that is known already."""
        first, last = update.first_update_id, update.last_update_id
        if last:
            if self.is_synchronised:
                if last <= self._last_update:
                    return False
                if first > self._last_update + 1:
                    self.is_synchronised = False
            elif self._waiting and last <= self._waiting[-1][0].last_update_id:
                return False
            if not self.is_synchronised:
                self._wait(update, received_us)
                return True
        if self.is_synchronised:
            self._enter((update.event_us or received_us) // DAY_US, received_us)
        self._last_update = last or self._last_update
        if update.bids or update.asks:
            self._record(BookKind.UPDATE, update, (first, last), received_us)
        if self.is_synchronised:
            self.book.apply(update.bids, update.asks)
            self._quote(update.event_us or received_us, received_us)
        return True

    def ticker(self, ticker: Ticker, received_us: int) -> bool:
        """Take the exchange's own best prices; return False for those that came last time too."""
        if ticker.update_id == self._last_ticker:
            return False
        is_older = ticker.update_id < self._last_ticker
        self._last_ticker = max(ticker.update_id, self._last_ticker)
        if is_older or (self.is_synchronised and ticker.update_id <= (self._last_update or 2**63)):
            return True  # the book, or a newer ticker, has said it better
        prices = (ticker.bid, ticker.bid_size, ticker.ask, ticker.ask_size)
        if prices != self._last_quote:
            event_us = ticker.event_us or received_us
            self._row(prices, NO_IMBALANCE, ticker.update_id, event_us, received_us, Source.TICKER)
        return True

    def disconnected(self) -> None:
        """Forget what can't be continued on a new connection: a book without numbered updates."""
        if not self._last_update:
            self.is_synchronised = False

    def finish(self) -> None:
        """Record the updates that wait: no snapshot will come any more."""
        for update, received_us in self._waiting:
            ids = (update.first_update_id, update.last_update_id)
            self._record(BookKind.UPDATE, update, ids, received_us)
        self._waiting.clear()

    def _wait(self, update: BookUpdate, received_us: int) -> None:
        if not self._waiting:
            self.needs_snapshot = True
        self._waiting.append((update, received_us))
        if len(self._waiting) > MOST_WAITING:
            oldest, oldest_received_us = self._waiting.popleft()
            ids = (oldest.first_update_id, oldest.last_update_id)
            self._record(BookKind.UPDATE, oldest, ids, oldest_received_us)

    def _enter(self, day: int, received_us: int) -> None:
        if day > self._day:
            book = self.book
            whole = BookSnapshot(self._product, self._last_update, book.bids(), book.asks(), day * DAY_US)
            self._record_whole(whole, received_us)

    def _record_whole(self, book: BookSnapshot, received_us: int) -> None:
        self._day = (book.event_us or received_us) // DAY_US
        self._record(BookKind.SNAPSHOT, book, (book.update_id, book.update_id), received_us)

    def _quote(self, event_us: int, received_us: int) -> None:
        top = self.book.top()
        if top is None or top == self._last_top:
            return
        if top.bid >= top.ask:
            self.is_synchronised = False
            self.needs_snapshot = True
            return
        self._last_top = top
        self._row(top[:4], top.imbalance, self._last_update, event_us, received_us, Source.BOOK)

    def _row(
        self,
        prices: tuple[int, int, int, int],
        imbalance: int,
        update_id: int,
        event_us: int,
        received_us: int,
        source: Source,
    ) -> None:
        self._last_quote = prices
        self._publish_quote(
            _pack(
                self._name,
                update_id,
                *prices,
                imbalance,
                event_us,
                received_us,
                source,
                self._exchange,
                QUOTE_RECORD_VERSION,
                0,
            )
        )

    def _record(
        self, kind: BookKind, levels: BookSnapshot | BookUpdate, ids: tuple[int, int], received_us: int
    ) -> None:
        self._publish_book(
            pack_book(
                product=self._product,
                kind=kind,
                exchange=self._exchange,
                event_us=levels.event_us or received_us,
                received_us=received_us,
                first_update_id=ids[0],
                last_update_id=ids[1],
                bids=levels.bids,
                asks=levels.asks,
            )
        )
