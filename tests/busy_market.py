"""A market that goes on: trades at a rate, quotes and books, into a home's log until it is stopped."""

import random
import threading
import time
from collections import deque
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from log_messages import quote_message

from benchmarks.prepared_trades import Records, publish, trade_records
from lakehouse.home import Home
from lakehouse.market.book import BookKind, pack_book
from lakehouse.market.time import now_us
from lakehouse.market.trade import Exchange, Lateness
from lakehouse.settings import USD_PRODUCTS
from streaming.spine.contract import Partition, partition_number
from streaming.spine.sqlite import SqliteSpine
from streaming.spine.topics import BOOK, QUOTES, TRADES


class Published(NamedTuple):
    """How far the market was at a moment."""

    ends: dict[Partition, int]
    """Where each partition of trades, quotes and books ended."""
    last_ids: dict[str, int]
    """The last trade of each product; those before it are published then, or will be within a second."""


class BusyMarket:
    """Publishes until it is stopped; the ids of each product's trades are contiguous from 1 on.

    One trade of two hundred comes a second late. Each tick has quotes, every fourth a book of 1 to 12 levels.
    """

    TICK_SECONDS = 0.05

    def __init__(self, home: Home, rate: int, seed: int) -> None:
        self._spine = SqliteSpine.open(home.spine)
        self._rate = rate
        self._chance = random.Random(seed)
        self._start_us = now_us()
        self._number = 0
        self._late: deque[Records] = deque()
        self._ticks = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._failed: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._spine.close()

    def stop(self) -> Published:
        """Publish no more, and say how far it came."""
        self._stop.set()
        self._thread.join()
        return self.published()

    def published(self) -> Published:
        """Say how far it is."""
        assert self._failed is None, self._failed
        last_ids = dict.fromkeys(USD_PRODUCTS, max(self._number // len(USD_PRODUCTS), 1))
        topics = (TRADES, QUOTES, BOOK)
        partitions = [Partition(topic, n) for topic in topics for n in range(self._spine.partitions)]
        return Published({partition: self._spine.end(partition) for partition in partitions}, last_ids)

    def _run(self) -> None:
        due = time.monotonic()
        try:
            while not self._stop.wait(max(due - time.monotonic(), 0)):
                due += self.TICK_SECONDS
                self._tick()
            while self._late:
                self._publish(self._late.popleft())
        except BaseException as error:
            self._failed = error
            raise

    def _tick(self) -> None:
        count = int(self._rate * self.TICK_SECONDS)
        step_us = 10**6 // self._rate
        trades = trade_records(count, start_us=self._start_us, step_us=step_us, first=self._number)
        is_late = np.array([self._chance.random() < 0.005 for _ in range(count)])
        late = trades[is_late]
        late["late"] = Lateness.LATE
        self._late.append(late)
        self._publish(trades[~is_late])
        if len(self._late) > 1 / self.TICK_SECONDS:
            self._publish(self._late.popleft())
        self._quotes_and_books(self._start_us + self._number * step_us)
        self._number += count
        self._ticks += 1

    def _publish(self, trades: Records) -> None:
        publish(self._spine, trades, at_once=len(trades) or 1)

    def _quotes_and_books(self, event_us: int) -> None:
        chance = self._chance
        messages: dict[Partition, list[bytes]] = {}
        for product in USD_PRODUCTS:
            number = partition_number(product, self._spine.partitions)
            bid = chance.randint(1, 10**12)
            imbalance = chance.choice([None, chance.randint(-(10**8), 10**8)])
            quote = quote_message(product, bid, bid + chance.randint(1, 999), event_us, imbalance)
            messages.setdefault(Partition(QUOTES, number), []).append(quote)
            if self._ticks % 4:
                continue
            levels = [(chance.randint(1, 10**12), chance.randint(0, 10**9)) for _ in range(12)]
            book = pack_book(
                product=product,
                kind=BookKind.UPDATE if self._ticks else BookKind.SNAPSHOT,
                exchange=Exchange.SIMULATED,
                event_us=event_us,
                received_us=event_us + 5,
                first_update_id=self._ticks,
                last_update_id=self._ticks + 3,
                bids=levels[: chance.randint(1, 6)],
                asks=levels[6 : chance.randint(6, 12)],
            )
            messages.setdefault(Partition(BOOK, number), []).append(book)
        self._spine.publish(messages)
