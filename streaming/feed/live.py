"""Running the handler on a live exchange."""

import asyncio
import contextlib
from typing import Final

import structlog

from lakehouse.market.time import now_us
from lakehouse.market.trade import Source
from lakehouse.settings import Settings
from streaming.exchanges.contract import Exchange
from streaming.feed.connection import Connection, Inbox
from streaming.feed.fetching import Fetcher
from streaming.feed.handler import FeedHandler
from streaming.feed.intake import FeedTotals
from streaming.feed.metrics import HandlerMetrics
from streaming.feed.pump import Pump
from streaming.feed.sessions import recover
from streaming.spine.contract import Spine

MOST_AT_ONCE: Final = 2_000
"""Frames handled before the socket gets its turn again: some milliseconds' worth."""

COUNT_EVERY: Final = 1.0
CHECKPOINT_EVERY: Final = 10.0
_IDLE: Final = 0.2

log = structlog.get_logger()


async def run_live(settings: Settings, spine: Spine, exchange: Exchange, stop: asyncio.Event) -> FeedTotals:
    """Feed a spine from an exchange's socket until `stop` is set.

    Raises:
        FeedError: the products can't be fed into this spine.
        SpineError: the spine is damaged (while it only can't be reached, it is waited for).
    """
    products = settings.chosen_products
    recovered = await asyncio.to_thread(recover, spine)
    handler = FeedHandler(
        exchange,
        products=products,
        partitions=spine.partitions,
        source=Source.FEED,
        states=recovered.products,
        lateness_minutes=settings.lateness_minutes,
    )
    recovered.count_the_rest(handler)
    inbox = Inbox()
    connection = Connection(
        exchange, products, inbox, silence=settings.watchdog_seconds, lost=handler.disconnected
    )
    rest = exchange.rest()
    fetcher = Fetcher(exchange, rest, connection, handler, inbox)
    pump = Pump(handler, spine, recovered.recordings)
    metrics = HandlerMetrics(exchange.code)
    helpers = [asyncio.create_task(connection.run()), asyncio.create_task(fetcher.run())]
    loop = asyncio.get_running_loop()
    next_count = next_checkpoint = loop.time()
    try:
        while not stop.is_set():
            await inbox.wait(_IDLE)
            if len(inbox) < MOST_AT_ONCE:
                await asyncio.sleep(settings.flush_interval_ms / 1000)
            handler.handle(inbox.take(MOST_AT_ONCE))
            handler.tick(now_us())
            for request in handler.requests():
                fetcher.ask(request)
            for helper in helpers:
                if helper.done():
                    helper.result()  # a helper ends only by an error: raise it here
            counted = loop.time() >= next_count
            if counted:
                next_count = loop.time() + COUNT_EVERY
                handler.count()
                metrics.update(handler, now_us())
            due = loop.time() >= next_checkpoint
            if due:
                next_checkpoint = loop.time() + CHECKPOINT_EVERY
            await pump.publish(with_checkpoint=due)
    finally:
        for helper in helpers:
            helper.cancel()
        for helper in helpers:
            with contextlib.suppress(asyncio.CancelledError):
                await helper
        await rest.close()
    while frames := inbox.take(MOST_AT_ONCE):
        handler.handle(frames)
    await pump.publish(with_checkpoint=True)
    await pump.flushed()
    metrics.update(handler, now_us())
    return handler.totals()
