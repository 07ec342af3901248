"""Recording: the raw frames of a live feed with the receiver's clock, into a file.

`python -m streaming.workers.record --feed coinbase --out FILE.jsonl.zst [--seconds N]`
"""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Final

import click
import msgspec
import structlog

from lakehouse.logs import configure
from lakehouse.market.time import now_us
from lakehouse.market.trade import Exchange as ExchangeCode
from lakehouse.settings import Settings, SettingsError, load_settings
from streaming.exchanges.choice import exchange_for
from streaming.exchanges.contract import Exchange, Rest, RestError
from streaming.exchanges.recording import RecordingError, RecordingWriter
from streaming.feed.connection import Connection, Inbox
from streaming.feed.handler import FeedError

FLUSH_EVERY: Final = 1.0
"""Seconds of frames that kill -9 may cost."""

_AT_ONCE: Final = 10_000

log = structlog.get_logger()


async def record(settings: Settings, writer: RecordingWriter, stop: asyncio.Event) -> int:
    """Write frames until `stop` is set; return how many.

    Books that come over REST are fetched after each connect and written between the frames.
    """
    products = settings.chosen_products
    exchange = exchange_for(ExchangeCode[settings.feed_kind.upper()], settings, products)
    rest = exchange.rest()
    inbox = Inbox()
    books = _Books(exchange, rest, products, writer)
    connection = Connection(
        exchange, products, inbox, silence=settings.watchdog_seconds, lost=books.fetch_again
    )
    helpers = [asyncio.create_task(connection.run()), asyncio.create_task(books.run(inbox))]
    loop = asyncio.get_running_loop()
    written = 0
    next_flush = loop.time() + FLUSH_EVERY
    try:
        while not stop.is_set():
            await inbox.wait(0.2)
            await asyncio.sleep(0.01)
            for received in inbox.take(_AT_ONCE):
                writer.write(*received)
                written += 1
            for helper in helpers:
                if helper.done():
                    helper.result()  # a helper ends only by an error: raise it here
            if loop.time() >= next_flush:
                next_flush = loop.time() + FLUSH_EVERY
                await asyncio.to_thread(writer.flush)
    finally:
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        await rest.close()
    for received in inbox.take(sys.maxsize):
        writer.write(*received)
        written += 1
    return written + books.written


class _Books:
    """Fetches each product's book once a connection, where the socket doesn't bring it."""

    def __init__(
        self, exchange: Exchange, rest: Rest, products: tuple[str, ...], writer: RecordingWriter
    ) -> None:
        self._exchange = exchange
        self._rest = rest
        self._products = products
        self._writer = writer
        self._wanted = asyncio.Event()
        self._wanted.set()
        self.written = 0

    def fetch_again(self) -> None:
        """Fetch all books again: the connection is a new one."""
        self._wanted.set()

    async def run(self, inbox: Inbox) -> None:
        """Fetch until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if not self._exchange.books_from_rest:
                continue
            before = inbox.total
            while inbox.total == before:
                await asyncio.sleep(0.1)
            await asyncio.sleep(1.0)  # a snapshot is of use only after the first updates
            for product in self._products:
                try:
                    raw, _ = await self._rest.book(product)
                except RestError as error:
                    log.warning("a book is missing in the recording", product=product, problem=str(error))
                    continue
                stream = product.replace("-", "", 1).lower() + "@depth"
                frame = msgspec.json.encode({"stream": stream, "data": msgspec.Raw(raw)}).decode()
                self._writer.write(frame, now_us())
                self.written += 1


@click.command()
@click.option("--feed", type=click.Choice(["simulated", "coinbase", "binance"]), required=True)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Stop after this time.")
def main(feed: str, out: Path, seconds: float | None) -> None:
    """Write the raw frames of a live feed to a file until Ctrl-C."""
    configure("record")
    try:
        settings = load_settings(feed=feed)
        with RecordingWriter(out, ExchangeCode[feed.upper()]) as writer:
            written = asyncio.run(_until_told(settings, writer, seconds))
    except (SettingsError, RecordingError, FeedError) as error:
        raise click.ClickException(str(error)) from None
    log.info("recorded", frames=written, path=str(out))


async def _until_told(settings: Settings, writer: RecordingWriter, seconds: float | None) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if seconds is not None:
        loop.call_later(seconds, stop.set)
    return await record(settings, writer, stop)


if __name__ == "__main__":
    main()
