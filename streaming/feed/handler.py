"""The feed's state machine: frames in, spine messages and requests out.

It owns no clock and no socket: time comes with each frame. The same frames in the same batches give the
same messages, byte for byte, which is what lets a recording be run again.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec
import structlog

from lakehouse.market.quarantine import Reason, Refused, RefusedError
from lakehouse.market.time import DAY_US, MINUTE_US
from lakehouse.market.trade import Exchange as ExchangeCode
from lakehouse.market.trade import Source, Trade
from lakehouse.market.trade_ids import TradeIds
from streaming.exchanges.contract import (
    BookSnapshot,
    BookUpdate,
    Event,
    Exchange,
    ExchangeError,
    Heartbeat,
    Ticker,
    TradePage,
)
from streaming.exchanges.recording import Received
from streaming.feed.book_desk import BookDesk
from streaming.feed.intake import FeedTotals, Intake
from streaming.feed.outbox import Outbox
from streaming.feed.trade_desk import TradeDesk, check_time
from streaming.feed.trade_gaps import NEVER, FillGap, GapsState, TradeGaps
from streaming.spine.contract import Partition
from streaming.spine.topics import BOOK, GAPS, QUARANTINE, QUOTES, TRADES

log = structlog.get_logger()


class FeedError(Exception):
    """The feed can't run; the text says why and what to do."""


class ResyncBook(NamedTuple):
    """A request: get a fresh snapshot of this product's book."""

    product: str


Request = FillGap | ResyncBook


class ProductState(msgspec.Struct):
    """What has to be known of a product to go on: its exchange, its trades, its gaps."""

    exchange: ExchangeCode
    ids: list[tuple[int, int]] = []
    newest_event_us: int = 0
    last_event_us: int = 0
    gaps: GapsState = msgspec.field(default_factory=GapsState)


class Uncounted(msgspec.Struct):
    """Inputs of one product and day that are in the log and in no intake count."""

    accepted: int = 0
    late: int = 0
    quarantined: int = 0


class _Desk:
    """All there is of one product."""

    __slots__ = ("book", "gaps", "ids", "trades")

    def __init__(self, ids: TradeIds, gaps: TradeGaps, trades: TradeDesk, book: BookDesk) -> None:
        self.ids = ids
        self.gaps = gaps
        self.trades = trades
        self.book = book


class FeedHandler:
    """Accepts or refuses everything one exchange says.

    Args:
        exchange: decodes the frames.
        products: those that are wanted; None for all that come.
        partitions: of the spine's topics.
        source: how the trades of frames come in.
        states: what earlier runs left, by product.
        lateness_minutes: how long after its minute's end a trade still counts in the live candle.

    Raises:
        FeedError: a wanted product's trades here are another exchange's.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        products: Collection[str] | None,
        partitions: int,
        source: Source,
        states: Mapping[str, ProductState],
        lateness_minutes: int,
    ) -> None:
        self._exchange = exchange
        self._products = None if products is None else frozenset(products)
        self._source = source
        self._lateness_us = lateness_minutes * MINUTE_US
        self._states = dict(states)
        self._desks: dict[str, _Desk] = {}
        self._outbox = Outbox(partitions)
        self._intake = Intake(exchange.code, self._outbox)
        self._due_us = NEVER
        self._rehearsing = False
        self._requests: list[Request] = []
        self.refused: dict[Reason, int] = {}
        """How many inputs were refused, by reason."""
        self.errors = 0
        """How many messages of the exchange said that something was refused."""
        for product in products or ():
            self._open(product)
        for desk in self._desks.values():
            self._requests += desk.gaps.resume()

    # ---- inputs

    def handle(self, frames: Sequence[Received]) -> None:
        """Take frames in the order in which they came."""
        decode = self._exchange.decode
        desks = self._desks
        source = self._source
        self._intake.at_the_door += len(frames)
        for frame, received_us in frames:
            if received_us >= self._due_us:
                self._settle(received_us)
            try:
                event = decode(frame)
                if type(event) is Trade:
                    desk = desks.get(event.product) or self._desk(event.product, "trade")
                    if desk.trades.accept(event, received_us, source):
                        self._due_us = min(self._due_us, desk.gaps.due_us)
                else:
                    self._other(event, received_us)
            except RefusedError as refusal:
                self._refuse(refusal, frame, received_us)

    def fill(self, page: TradePage, received_us: int) -> None:
        """Take a page of trades that was fetched over REST; each record is an input."""
        for trade in page.trades:
            self._intake.at_the_door += 1
            try:
                self._desk(trade.product, "trade").trades.accept(trade, received_us, Source.REST)
            except RefusedError as refusal:
                self._refuse(refusal, msgspec.json.encode(trade), received_us)
        for raw, error in page.refused:
            self._intake.at_the_door += 1
            self._refuse(error, raw, received_us)

    def filled(self, request: FillGap, received_us: int) -> None:
        """Take notice that the exchange was asked for all of a gap."""
        self._desks[request.product].gaps.asked(request, received_us)

    def snapshot(self, snapshot: BookSnapshot, received_us: int) -> None:
        """Take a book's snapshot that was fetched over REST; it is one input."""
        self._intake.at_the_door += 1
        self._other(snapshot, received_us)

    def tick(self, now_us: int) -> None:
        """Let time pass: confirm the gaps whose grace is over."""
        if now_us >= self._due_us:
            self._settle(now_us)

    def disconnected(self) -> None:
        """Take notice that the connection was lost: unnumbered books can't be continued."""
        for desk in self._desks.values():
            desk.book.disconnected()

    def finish(self, now_us: int) -> None:
        """Take notice that nothing more will come: confirm all gaps, record what waited."""
        for desk in self._desks.values():
            desk.gaps.settle(now_us, at_once=True)
            desk.book.finish()

    # ---- outputs

    def take(self) -> dict[Partition, list[bytes]]:
        """Return the messages since the last call."""
        return self._outbox.take()

    def count(self) -> None:
        """Put the intake counts since the last call among the messages."""
        self._intake.publish()
        for desk in self._desks.values():
            desk.trades.recount()

    def rehearse(self, frames: Sequence[Received]) -> None:
        """Take frames whose messages an earlier run published: only the books and quotes go on.

        All of them count as duplicates.
        """
        self._rehearsing = True
        self.handle(frames)
        self._rehearsing = False
        self._outbox.take()
        self._intake.discard()
        for desk in self._desks.values():
            desk.trades.recount()
            desk.book.needs_snapshot = False
        self._requests.clear()
        self._due_us = min((desk.gaps.due_us for desk in self._desks.values()), default=NEVER)

    def known_before(self, inputs: int) -> None:
        """Count inputs that an earlier run has wholly dealt with."""
        self._intake.at_the_door += inputs
        self._intake.add_duplicates(inputs)

    def requests(self) -> list[Request]:
        """Return what the shell has to fetch, and forget it."""
        taken, self._requests = self._requests, []
        return taken

    def totals(self) -> FeedTotals:
        """Return the sums since the start of this run."""
        totals = self._intake.totals()
        totals.gaps = sum(desk.gaps.found for desk in self._desks.values())
        return totals

    def counts_by_kind(self) -> Mapping[tuple[str, str], int]:
        """Return the counts put among the messages so far, by kind and exit."""
        return self._intake.by_kind

    def states(self) -> dict[str, ProductState]:
        """Return what the next run has to know, of all products ever seen here."""
        for product, desk in self._desks.items():
            self._states[product] = ProductState(
                self._exchange.code,
                list(desk.ids),
                desk.trades.newest_event_us,
                desk.trades.last_event_us,
                desk.gaps.state,
            )
        return self._states

    def recount(self, product: str, day: int, missing: Uncounted) -> None:
        """Count inputs of a product and day that an earlier run published and, killed, didn't count."""
        for kind, accepted, quarantined in (
            ("trade", missing.accepted, 0),
            ("unknown", 0, missing.quarantined),
        ):
            if accepted > 0 or quarantined > 0:
                tally = self._intake.tally(product, day, kind)
                tally.received += accepted + quarantined
                tally.accepted += accepted
                tally.quarantined += quarantined
                tally.late += missing.late if accepted else 0
                self._intake.at_the_door += accepted + quarantined

    @property
    def open_gaps(self) -> int:
        """Gaps that are found and not filled."""
        return sum(desk.gaps.open for desk in self._desks.values())

    @property
    def newest_event_us(self) -> dict[str, int]:
        """For each product the time of its newest trade."""
        return {product: desk.trades.newest_event_us for product, desk in self._desks.items()}

    def book(self, product: str) -> BookDesk:
        """Return a product's book."""
        return self._desks[product].book

    # ---- events other than trades

    def _other(self, event: Event, received_us: int) -> None:
        day = received_us // DAY_US
        if isinstance(event, Ticker):
            desk = self._desk(event.product, "ticker")
            is_new = desk.book.ticker(event, self._checked(event, received_us, "ticker"))
            self._exit(event.product, (event.event_us or received_us) // DAY_US, "ticker", is_new)
        elif isinstance(event, BookUpdate):
            desk = self._desk(event.product, "book")
            is_new = desk.book.update(event, self._checked(event, received_us, "book"))
            self._exit(event.product, (event.event_us or received_us) // DAY_US, "book", is_new)
            self._want_book(event.product, desk)
        elif isinstance(event, BookSnapshot):
            product = event.product or self._awaiting(event)
            desk = self._desk(product, "book")
            is_new = desk.book.snapshot(event, self._checked(event, received_us, "book"))
            self._exit(product, (event.event_us or received_us) // DAY_US, "book", is_new)
            self._want_book(product, desk)
        elif isinstance(event, Heartbeat):
            desk = self._desk(event.product, "heartbeat")
            self._checked(event, received_us, "heartbeat")
            last = desk.trades.last_event_us
            if desk.gaps.heard(event.last_trade_id, event.event_us, last, received_us):
                self._due_us = min(self._due_us, desk.gaps.due_us)
            self._exit(event.product, event.event_us // DAY_US, "heartbeat", True)
        else:
            if isinstance(event, ExchangeError):
                self.errors += 1
                log.warning("the exchange answered an error", message=event.message)
            self._exit("", day, "control", True)

    def _checked(
        self, event: Ticker | BookUpdate | BookSnapshot | Heartbeat, received_us: int, kind: str
    ) -> int:
        """Return `received_us` after a look at the event's time."""
        if event.event_us:
            check_time(event.event_us, received_us, event.product, kind)
        return received_us

    def _exit(self, product: str, day: int, kind: str, is_new: bool) -> None:
        tally = self._intake.tally(product, day, kind)
        tally.received += 1
        if is_new:
            tally.accepted += 1
        else:
            tally.duplicates += 1

    def _awaiting(self, snapshot: BookSnapshot) -> str:
        """Return the product a nameless snapshot belongs to: the one whose waiting updates it fits."""
        waiting = [product for product, desk in self._desks.items() if desk.book.waits]
        fitting = [product for product in waiting if self._desks[product].book.fits(snapshot)]
        among = [product for product in fitting if self._desks[product].book.spans(snapshot)]
        for candidates in (among, fitting, waiting, list(self._desks)):
            if len(candidates) == 1:
                return candidates[0]
        raise RefusedError(
            Reason.WRONG_SHAPE,
            f"the snapshot names no product, and fits the updates of {len(fitting)}",
            kind="book",
        )

    def _want_book(self, product: str, desk: _Desk) -> None:
        if desk.book.needs_snapshot:
            desk.book.needs_snapshot = False
            self._requests.append(ResyncBook(product))

    # ---- the rest

    def _settle(self, now_us: int) -> None:
        if self._rehearsing:
            return
        for desk in self._desks.values():
            if now_us >= desk.gaps.due_us:
                self._requests += desk.gaps.settle(now_us)
        self._due_us = min((desk.gaps.due_us for desk in self._desks.values()), default=NEVER)

    def _desk(self, product: str, kind: str) -> _Desk:
        desk = self._desks.get(product)
        if desk is not None:
            return desk
        if self._products is not None and product not in self._products:
            raise RefusedError(Reason.UNKNOWN_PRODUCT, f"{product} is not configured", product, kind)
        return self._open(product)

    def _open(self, product: str) -> _Desk:
        code = self._exchange.code
        state = self._states.get(product, ProductState(code))
        if state.exchange is not code:
            raise FeedError(
                f"{product} holds trades of {state.exchange.name.lower()} here, so trades of "
                f"{code.name.lower()} can't be added: set LAKEHOUSE_HOME to another folder, or leave "
                f"{product} out of LAKEHOUSE_PRODUCTS"
            )
        ids = TradeIds(state.ids)
        gaps = TradeGaps(
            code,
            product,
            ids,
            self._outbox.sink(GAPS, product),
            fillable=self._source is Source.FEED,
            state=state.gaps,
        )
        self._due_us = min(self._due_us, gaps.due_us)
        trades = TradeDesk(
            code,
            product,
            ids=ids,
            gaps=gaps,
            newest_event_us=state.newest_event_us,
            last_event_us=state.last_event_us,
            lateness_us=self._lateness_us,
            intake=self._intake,
            publish=self._outbox.sink(TRADES, product),
        )
        book = BookDesk(code, product, self._outbox.sink(BOOK, product), self._outbox.sink(QUOTES, product))
        desk = self._desks[product] = _Desk(ids, gaps, trades, book)
        return desk

    def _refuse(self, refusal: RefusedError, frame: str | bytes, received_us: int) -> None:
        known = refusal.product if refusal.product in self._desks else ""
        tally = self._intake.tally(known, received_us // DAY_US, refusal.kind)
        tally.received += 1
        tally.quarantined += 1
        self.refused[refusal.reason] = self.refused.get(refusal.reason, 0) + 1
        raw = frame.encode("utf-8", "surrogatepass") if isinstance(frame, str) else frame
        refused = Refused(
            self._exchange.code, refusal.product, refusal.reason, refusal.detail, received_us, raw
        )
        self._outbox.sink(QUARANTINE, refusal.product)(msgspec.msgpack.encode(refused))
