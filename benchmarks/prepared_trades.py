"""Trades made ahead of a measurement, so that making them is no part of it."""

import numpy as np
import numpy.typing as npt

from lakehouse.market.trade import TRADE_RECORD, TRADE_RECORD_VERSION, Exchange, Source
from lakehouse.settings import USD_PRODUCTS
from streaming.spine.contract import Partition, Spine, partition_number
from streaming.spine.topics import TRADES

Records = npt.NDArray[np.void]


def trade_records(
    count: int, *, start_us: int, step_us: int, first: int = 0, products: tuple[str, ...] = USD_PRODUCTS
) -> Records:
    """Return trades as the feed writes them into the log: `TRADE_RECORD`s, in the order of time.

    Args:
        count: how many.
        start_us: event time of trade number 0, µs UTC.
        step_us: time between two trades.
        first: number of the first one; a later call goes on where this one ended.
        products: take turns; each one's ids are contiguous from 1 on.
    """
    number = np.arange(first, first + count)
    generator = np.random.default_rng(first + 1)
    trades = np.zeros(count, dtype=TRADE_RECORD)
    trades["product"] = np.array(products, dtype=TRADE_RECORD["product"])[number % len(products)]
    trades["trade_id"] = number // len(products) + 1
    trades["price"] = 6_100_000_000_000 + generator.integers(-200, 201, count).cumsum() * 1_000_000
    trades["size"] = generator.integers(1, 200_000_000, count)
    trades["event_us"] = start_us + number * step_us
    trades["received_us"] = trades["event_us"] + generator.integers(300, 3_000, count)
    trades["taker_side"] = generator.integers(0, 2, count)
    trades["source"] = Source.FEED
    trades["exchange"] = Exchange.SIMULATED
    trades["version"] = TRADE_RECORD_VERSION
    return trades


def publish(spine: Spine, trades: Records, *, at_once: int) -> None:
    """Publish trades in order, `at_once` of them in each transaction, in their products' partitions."""
    size = TRADE_RECORD.itemsize
    names, codes = np.unique(trades["product"], return_inverse=True)
    numbers = np.array([partition_number(name.decode(), spine.partitions) for name in names.tolist()])[codes]
    for start in range(0, len(trades), at_once):
        batch = {}
        for number in range(spine.partitions):
            part = trades[start : start + at_once][numbers[start : start + at_once] == number]
            joined = part.tobytes()
            if joined:
                messages = [joined[at : at + size] for at in range(0, len(joined), size)]
                batch[Partition(TRADES, number)] = messages
        spine.publish(batch)
