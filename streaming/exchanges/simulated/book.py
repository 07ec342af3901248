"""The book that a product's trades come from: its state at each step, its changes, its best prices.

The size shown on a level is what the step's trades will take from it plus what will be left. So every
trade of a step happens at a price the book showed at the step's start, for no more than it showed there,
and a level that a trade clears is gone after it.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from lakehouse.market.book import BookSide
from lakehouse.market.trade import Side
from streaming.exchanges.simulated.ladder import STEP_US
from streaming.exchanges.simulated.market import STEPS, ProductMarket, Trades
from streaming.exchanges.simulated.noise import Ints

DEPTH: Final = 50
"""Levels on each side."""


class Change(NamedTuple):
    """A level's new size (0: the level is gone); price and size scaled by 10⁸."""

    side: BookSide
    price: int
    size: int


class BookState(NamedTuple):
    """A book: (price, size) from the best level outwards, scaled by 10⁸."""

    bids: list[tuple[int, int]]
    asks: list[tuple[int, int]]


class Tops(NamedTuple):
    """Best bid and ask right after each trade; arrays of scaled integers as long as the trades."""

    bid: Ints
    bid_size: Ints
    ask: Ints
    ask_size: Ints


class _Groups(NamedTuple):
    """The levels one side's trades touch in their steps, and each trade's group."""

    trade: Ints
    """Places of this side's trades among all trades."""
    group: Ints
    """The group each of these trades belongs to."""
    shown: Ints
    """Of each group: the size at the step's start."""
    left: Ints
    """Of each trade: what is left of its level after it."""
    step: Ints
    level: Ints


def step_of(moment_us: int) -> int:
    """Return the number since 1970 of the step whose book has been published before a moment."""
    return (moment_us - 1) // STEP_US


def _touched(market: ProductMarket, trades: Trades, side: BookSide) -> _Groups:
    taker = Side.BUY if side is BookSide.ASK else Side.SELL
    where = np.flatnonzero(trades["taker_side"] == taker)
    part = trades[where]
    step = part["event_us"] // STEP_US
    level = _level(part["middle"], part["depth"], side)
    if len(where) == 0:
        return _Groups(where, where, where, where, step, level)
    first = np.ones(len(where), dtype=np.bool_)
    first[1:] = (step[1:] != step[:-1]) | (level[1:] != level[:-1])
    starts = np.flatnonzero(first)
    last = np.append(starts[1:], len(where)) - 1
    group = np.cumsum(first) - 1
    eaten = np.cumsum(part["size"])
    before = eaten[starts] - part["size"][starts]
    rest = market.ladder.resting(level[starts], step[starts])
    shown = eaten[last] - before + np.where(part["clears"][last], 0, rest)
    return _Groups(where, group, shown, shown[group] - (eaten - before[group]), step[starts], level[starts])


def _level(middle: Ints, depth: Ints, side: BookSide) -> Ints:
    return middle + 1 + depth if side is BookSide.ASK else middle - depth


class StepBooks:
    """The books of consecutive steps within one second or across the border of two.

    Args:
        market: the product's.
        first_step: number since 1970 of the first step.
        count: how many steps; a few dozen.
        trades: all trades of these steps, and maybe more.
    """

    def __init__(self, market: ProductMarket, first_step: int, count: int, trades: Trades) -> None:
        steps = np.arange(first_step, first_step + count, dtype=np.int64)
        self.first_step = first_step
        self._middle = market.middles(steps // STEPS, steps % STEPS)
        self._lowest = int(self._middle.min()) - DEPTH + 1
        levels = np.arange(self._lowest, int(self._middle.max()) + DEPTH + 1, dtype=np.int64)
        self._prices = market.ladder.price(levels)
        self._is_ask = levels[None, :] > self._middle[:, None]
        sizes = market.ladder.resting(
            np.broadcast_to(levels, (count, len(levels))).ravel(), np.repeat(steps, len(levels))
        ).reshape(count, len(levels))
        for side in BookSide:
            touched = _touched(market, trades, side)
            inside = (touched.step >= first_step) & (touched.step < first_step + count)
            sizes[touched.step[inside] - first_step, touched.level[inside] - self._lowest] = touched.shown[
                inside
            ]
        outside = (levels[None, :] > self._middle[:, None] + DEPTH) | (
            levels[None, :] <= self._middle[:, None] - DEPTH
        )
        sizes[outside | (self._prices <= 0)[None, :]] = 0
        self._sizes = sizes

    def state(self, step: int) -> BookState:
        """Return the whole book at the start of a step."""
        row = step - self.first_step
        sizes = self._sizes[row]
        border = int(self._middle[row]) + 1 - self._lowest
        asks = list(zip(self._prices[border:].tolist(), sizes[border:].tolist(), strict=True))
        bids = list(zip(self._prices[:border][::-1].tolist(), sizes[:border][::-1].tolist(), strict=True))
        return BookState(
            [level for level in bids if level[1]],
            [level for level in asks if level[1]],
        )

    def changes(self, step: int) -> list[Change]:
        """Return what turns the book of the step before into that of `step`, removals first."""
        row = step - self.first_step
        old, new = self._sizes[row - 1], self._sizes[row]
        was_ask, is_ask = self._is_ask[row - 1], self._is_ask[row]
        turned = was_ask != is_ask
        gone = np.flatnonzero((old > 0) & (turned | (new == 0)))
        changed = np.flatnonzero((new > 0) & (turned | (old != new)))
        removals = zip(was_ask[gone].tolist(), self._prices[gone].tolist(), strict=True)
        result = [Change(BookSide(int(ask)), price, 0) for ask, price in removals]
        for ask, price, size in zip(
            is_ask[changed].tolist(), self._prices[changed].tolist(), new[changed].tolist(), strict=True
        ):
            result.append(Change(BookSide(int(ask)), price, size))
        return result


def book_at(market: ProductMarket, step: int) -> BookState:
    """Return a product's book at the start of a step since 1970."""
    second = step // STEPS
    return StepBooks(market, step, 1, market.seconds(second, second + 1)).state(step)


def tops_after(market: ProductMarket, trades: Trades) -> Tops:
    """Return the best bid and ask after each trade; `trades` are those of whole steps."""
    bid, bid_size = _best_after(market, trades, BookSide.BID)
    ask, ask_size = _best_after(market, trades, BookSide.ASK)
    return Tops(bid, bid_size, ask, ask_size)


def _best_after(market: ProductMarket, trades: Trades, side: BookSide) -> tuple[Ints, Ints]:
    groups = _touched(market, trades, side)
    step = trades["event_us"] // STEP_US
    level = _level(trades["middle"], np.zeros(len(trades), dtype=np.int64), side)
    size = market.ladder.resting(level, step)
    if len(groups.trade):
        away = 1 if side is BookSide.ASK else -1
        last = np.searchsorted(groups.trade, np.arange(len(trades)), side="right") - 1
        # After the side's latest trade of the step: what it left, or the next level if it left nothing.
        had = (last >= 0) & (groups.step[groups.group[np.maximum(last, 0)]] == step)
        at = np.maximum(last, 0)
        cleared = groups.left[at] == 0
        reached = groups.level[groups.group[at]] + np.where(cleared, away, 0)
        level = np.where(had, reached, level)
        size = np.where(had & ~cleared, groups.left[at], market.ladder.resting(level, step))
        # A level that trades still to come will take from shows what they will take.
        coming = groups.group[at] + np.where(last < 0, 0, 1)
        known = np.minimum(coming, len(groups.shown) - 1)
        ahead = (coming < len(groups.shown)) & (groups.step[known] == step) & (groups.level[known] == level)
        size = np.where(ahead & ~(had & ~cleared), groups.shown[known], size)
    return market.ladder.price(level), size


def walk_steps(first_us: int, end_us: int) -> Iterator[int]:
    """Yield the steps that start in `first_us` to before `end_us`."""
    yield from range(-(-first_us // STEP_US), -(-end_us // STEP_US))
