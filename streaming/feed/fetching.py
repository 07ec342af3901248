"""Fetching over REST what the handler asks for: missing trades, and books."""

import asyncio
import random
from typing import Final

import structlog

from lakehouse.market.time import now_us
from streaming.exchanges.contract import Exchange, Rest, RestError
from streaming.feed.connection import Connection, Inbox
from streaming.feed.handler import FeedHandler, Request, ResyncBook
from streaming.feed.trade_gaps import FillGap

LONGEST_WAIT: Final = 60.0
_FIRST_WAIT: Final = 0.5
_CALM: Final = 60.0
"""Seconds without a resync after which a product's book is trusted again."""

log = structlog.get_logger()


class Fetcher:
    """Answers the handler's requests: gaps one after the other, each book on its own.

    Args:
        exchange: whose books come over REST or over the socket.
        rest: its REST interface.
        connection: sends what makes the exchange send a book again.
        handler: gets the answers.
        inbox: woken when there is something new to publish.
    """

    def __init__(
        self, exchange: Exchange, rest: Rest, connection: Connection, handler: FeedHandler, inbox: Inbox
    ) -> None:
        self._exchange = exchange
        self._rest = rest
        self._connection = connection
        self._handler = handler
        self._inbox = inbox
        self._gaps: asyncio.Queue[FillGap] = asyncio.Queue()
        self._books: dict[str, asyncio.Task[None]] = {}
        self._attempts: dict[str, tuple[int, float]] = {}

    def ask(self, request: Request) -> None:
        """Take a request; returns at once."""
        if isinstance(request, FillGap):
            self._gaps.put_nowait(request)
        elif request.product not in self._books or self._books[request.product].done():
            self._books[request.product] = asyncio.create_task(self._resync(request))

    async def run(self) -> None:
        """Fill gaps until cancelled."""
        try:
            while True:
                await self._fill(await self._gaps.get())
        finally:
            for task in self._books.values():
                task.cancel()
            await asyncio.gather(*self._books.values(), return_exceptions=True)

    async def _fill(self, gap: FillGap) -> None:
        fields = {"product": gap.product, "first": gap.first_trade_id, "last": gap.last_trade_id}
        for attempt in range(10**6):
            try:
                async for page in self._rest.trades(
                    gap.product, first_id=gap.first_trade_id, before_id=gap.last_trade_id + 1
                ):
                    self._handler.fill(page, now_us())
                    self._inbox.wake()
            except RestError as error:
                wait = _backoff(attempt)
                log.warning("a gap is not filled yet", problem=str(error), seconds=round(wait, 1), **fields)
                await asyncio.sleep(wait)
            else:
                self._handler.filled(gap, now_us())
                self._inbox.wake()
                log.info("a gap was asked for", **fields)
                return

    async def _resync(self, request: ResyncBook) -> None:
        """Get one product's book, after a wait that grows with each attempt that follows closely."""
        loop = asyncio.get_running_loop()
        while True:
            attempt, last = self._attempts.get(request.product, (0, 0.0))
            attempt = 0 if loop.time() - last > _CALM else attempt
            if attempt:
                await asyncio.sleep(_backoff(attempt))
            self._attempts[request.product] = (attempt + 1, loop.time())
            if not self._exchange.books_from_rest:
                await self._connection.send(self._exchange.resubscribe_book(request.product))
                return
            try:
                _, snapshot = await self._rest.book(request.product)
            except RestError as error:
                log.warning("no book yet", product=request.product, problem=str(error))
                continue
            self._handler.snapshot(snapshot, now_us())
            self._inbox.wake()
            return


def _backoff(attempt: int) -> float:
    return random.uniform(0.5, 1.0) * min(LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(attempt, 10))
