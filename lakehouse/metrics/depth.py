"""How much could be traded near the mid price: a day's archived book, replayed.

The book is looked at as it stood at each minute's end, in which a message of it came; of other minutes nobody
knows whether the market stood still or the feed did. Depth within x basis points is what rests at prices
that are at most x / 10,000 away from the mid price, in the quote currency.

A day's rows are many (a liquid product changes a thousand levels a second), so they are taken in pieces, and
within a minute only the last size of each price is applied.
"""

from collections.abc import Iterable
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.market.columns import microseconds, scaled_integers
from lakehouse.market.time import MINUTE_US, day_start_us
from lakehouse.stores.schemas import DEPTH_BANDS_BPS

COLUMNS: Final = ("event_time", "spine_offset", "level", "kind", "side", "price", "size")
"""The columns of `book` that are looked at."""

DEPTHS: Final = tuple(f"{side}_depth_{band}bps" for side in ("bid", "ask") for band in DEPTH_BANDS_BPS)
"""The columns of `liquidity` that are made here."""

_SCALE = 1e8

Int64s = npt.NDArray[np.int64]


def depth_figures(day: date, pieces: Iterable[pa.Table]) -> dict[str, float | None]:
    """Return a product's day of `LIQUIDITY` as far as its book tells: `book_minutes` and `DEPTHS`.

    Args:
        day: UTC day.
        pieces: the day's rows of `book` with at least `COLUMNS`, in the order of the log.

    Returns:
        the number of minutes at whose end the book is known, and the means over them, None without any.

    Raises:
        ValueError: a price or size is empty.
    """
    replay = _Replay(day_start_us(day))
    for piece in pieces:
        replay.take(piece)
    replay.end_minute()
    means = np.mean(replay.found, axis=0).tolist() if replay.found else [None] * len(DEPTHS)
    return {"book_minutes": len(replay.found)} | dict(zip(DEPTHS, means, strict=True))


class _Side:
    """One side of the book: its prices in ascending order and their sizes, scaled by 10⁸."""

    def __init__(self) -> None:
        self.prices: Int64s = np.empty(0, np.int64)
        self._sizes: Int64s = np.empty(0, np.int64)

    def apply(self, prices: Int64s, sizes: Int64s) -> None:
        """Set sizes, of a price given twice the last; 0 removes the level."""
        prices, last = np.unique(prices[::-1], return_index=True)
        sizes = sizes[::-1][last]
        at = np.searchsorted(self.prices, prices)
        is_there = np.append(self.prices, 0)[at] == prices
        self._sizes[at[is_there]] = sizes[is_there]
        self.prices = np.insert(self.prices, at[~is_there], prices[~is_there])
        self._sizes = np.insert(self._sizes, at[~is_there], sizes[~is_there])
        rests = self._sizes > 0
        self.prices, self._sizes = self.prices[rests], self._sizes[rests]

    def value(self, lowest: int, highest: int) -> float:
        """Return what rests from one price to another, in the quote currency."""
        first, end = np.searchsorted(self.prices, lowest), np.searchsorted(self.prices, highest, side="right")
        # No dot product: on full processors the threads of the algebra library wait for each other.
        return float((self.prices[first:end] / _SCALE * (self._sizes[first:end] / _SCALE)).sum())


class _Replay:
    """The book as far as the day has been read, and what was found at the ends of minutes."""

    def __init__(self, start_us: int) -> None:
        self._start_us = start_us
        self._minute = 0
        self._snapshot: int | None = None
        self._bids, self._asks = _Side(), _Side()
        self.found: list[list[float]] = []

    def take(self, rows: pa.Table) -> None:
        """Go on with rows that follow in the log."""
        # An update that waited for a snapshot comes after it in the log, but is the older one by its time.
        minutes = (microseconds(rows["event_time"]) - self._start_us) // MINUTE_US
        minutes = np.maximum.accumulate(np.maximum(minutes, self._minute))
        starts = np.flatnonzero(np.diff(minutes, prepend=self._minute)).tolist()
        for start, end in zip([0, *starts], [*starts, len(minutes)], strict=True):
            if start < end:
                if minutes[start] > self._minute:
                    self.end_minute()
                    self._minute = int(minutes[start])
                self._apply(rows.slice(start, end - start))

    def _apply(self, rows: pa.Table) -> None:
        offsets = rows["spine_offset"].to_numpy()
        of_snapshot = pc.equal(rows["kind"], "snapshot").to_numpy()
        if of_snapshot.any() and (newest := int(offsets[of_snapshot][-1])) != self._snapshot:
            self._snapshot = newest
            self._bids, self._asks = _Side(), _Side()
            rows = rows.slice(int(np.searchsorted(offsets, newest)))
        is_bid = pc.equal(rows["side"], "bid").to_numpy()
        prices, sizes = scaled_integers(rows["price"]), scaled_integers(rows["size"])
        self._bids.apply(prices[is_bid], sizes[is_bid])
        self._asks.apply(prices[~is_bid], sizes[~is_bid])

    def end_minute(self) -> None:
        """Look at the book, if it is known."""
        bids, asks = self._bids, self._asks
        if self._snapshot is None or not len(bids.prices) or not len(asks.prices):
            return
        best_bid, best_ask = int(bids.prices[-1]), int(asks.prices[0])
        if best_bid >= best_ask:  # a change was missed; the feed asks for a snapshot then
            return
        twice_mid = best_bid + best_ask
        lowest = [-(twice_mid * (band - 10_000) // 20_000) for band in DEPTH_BANDS_BPS]
        highest = [twice_mid * (band + 10_000) // 20_000 for band in DEPTH_BANDS_BPS]
        self.found.append(
            [bids.value(price, best_bid) for price in lowest]
            + [asks.value(best_ask, price) for price in highest]
        )
