"""Where the tests of the assets take place: two products, one day that is over, and the day after it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta

from lakehouse.market.time import HOUR_US, day_start_us
from lakehouse_assets.partitions import product_day_key
from streaming.exchanges.simulated.server import SimulatedExchange

PRODUCTS = ("BTC-USD", "ETH-USD")
BTC = "BTC-USD"
DAY = date(2025, 6, 10)
NEXT_DAY = DAY + timedelta(days=1)
EXCHANGE_NOW_US = day_start_us(NEXT_DAY) + HOUR_US
KEY = product_day_key(BTC, DAY)
LIVE_KEY = product_day_key(BTC, NEXT_DAY)


@contextmanager
def simulated_exchange() -> Iterator[SimulatedExchange]:
    """The exchange on real sockets, in a thread; its day DAY has been over for an hour."""
    started: list[SimulatedExchange] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with SimulatedExchange(
            PRODUCTS, rate=0.02, start_us=EXCHANGE_NOW_US, rest_rate=10_000
        ) as running:
            started.append(running)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(20)
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
