"""The exchange's own candles, computed from its trades."""

from typing import NamedTuple

import numpy as np

from lakehouse.market.time import HOUR_US, SECOND_US
from streaming.exchanges.simulated.market import ProductMarket, Trades


class ExchangeCandle(NamedTuple):
    """A candle; prices and volume scaled by 10⁸."""

    start_us: int
    low: int
    high: int
    open: int
    close: int
    volume: int


def candles(market: ProductMarket, first_us: int, end_us: int, granularity: int) -> list[ExchangeCandle]:
    """Return the candles of the trades with `first_us <= event_us < end_us`, oldest first.

    Args:
        market: the product's trades.
        first_us: a candle's start.
        end_us: may lie within a candle, which then holds what happened before.
        granularity: a candle's length in seconds.

    Returns:
        Those candles that have a trade.
    """
    length = granularity * SECOND_US
    result: list[ExchangeCandle] = []
    stride = max(length, HOUR_US - HOUR_US % length)
    for start in range(first_us, end_us, stride):
        stop = min(start + stride, end_us)
        open_candle: ExchangeCandle | None = None
        for hour in range(start, stop, HOUR_US):
            for candle in _of(market.between(hour, min(hour + HOUR_US, stop)), length):
                if open_candle is not None and open_candle.start_us == candle.start_us:
                    candle = _joined(open_candle, candle)
                    result.pop()
                result.append(candle)
                open_candle = candle
    return result


def _of(trades: Trades, length: int) -> list[ExchangeCandle]:
    if len(trades) == 0:
        return []
    starts = trades["event_us"] - trades["event_us"] % length
    first = np.flatnonzero(np.concatenate(([True], starts[1:] != starts[:-1])))
    last = np.append(first[1:], len(trades)) - 1
    columns = (
        starts[first],
        np.minimum.reduceat(trades["price"], first),
        np.maximum.reduceat(trades["price"], first),
        trades["price"][first],
        trades["price"][last],
        np.add.reduceat(trades["size"], first),
    )
    return [ExchangeCandle(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _joined(first: ExchangeCandle, second: ExchangeCandle) -> ExchangeCandle:
    return ExchangeCandle(
        first.start_us,
        min(first.low, second.low),
        max(first.high, second.high),
        first.open,
        second.close,
        first.volume + second.volume,
    )
