"""The maintained book: snapshots and changed levels in, the best prices out, all in exact integers."""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final, NamedTuple

from lakehouse.market.exact import ONE

IMBALANCE_LEVELS: Final = 5
"""How many levels of each side the imbalance counts."""


class Top(NamedTuple):
    """The best bid and ask, their sizes, and the imbalance of the five best levels; scaled by 10⁸.

    The imbalance is (bid volume - ask volume) / (bid volume + ask volume), rounded toward minus infinity.
    """

    bid: int
    bid_size: int
    ask: int
    ask_size: int
    imbalance: int


class _Side:
    """One side: sizes by price, and the prices in order with the best one last.

    The best one is last because that is where nearly all changes happen, and a list is cheap to change
    at its end whatever its length. `sign` turns an ask's price around so that "best" is "highest".
    """

    __slots__ = ("_order", "_sign", "sizes")

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self.sizes: dict[int, int] = {}
        self._order: list[int] = []

    def replace(self, levels: Iterable[tuple[int, int]]) -> None:
        self.sizes = {price: size for price, size in dict(levels).items() if size}
        self._order = sorted(self._sign * price for price in self.sizes)

    def apply(self, levels: Iterable[tuple[int, int]]) -> None:
        sizes, order, sign = self.sizes, self._order, self._sign
        for price, size in levels:
            if size:
                if price not in sizes:
                    key = sign * price
                    order.insert(bisect_left(order, key), key)
                sizes[price] = size
            elif price in sizes:
                del sizes[price]
                del order[bisect_left(order, sign * price)]

    def best(self) -> int | None:
        return self._sign * self._order[-1] if self._order else None

    def volume(self, depth: int) -> int:
        sizes, sign = self.sizes, self._sign
        return sum([sizes[sign * key] for key in self._order[-depth:]])

    def levels(self, depth: int | None) -> list[tuple[int, int]]:
        keys = self._order[::-1] if depth is None else self._order[: -depth - 1 : -1]
        return [(self._sign * key, self.sizes[self._sign * key]) for key in keys]


class OrderBook:
    """One product's book.

    Levels are (price, size), both scaled by 10⁸; size 0 removes the level, and removing a level that
    isn't there changes nothing (exchanges do it).

    >>> book = OrderBook()
    >>> book.replace(bids=[(99, 2), (98, 1)], asks=[(101, 1)])
    >>> book.apply(bids=[(99, 0)], asks=[(100, 3)])
    >>> book.top()
    Top(bid=98, bid_size=1, ask=100, ask_size=3, imbalance=-60000000)
    """

    __slots__ = ("_asks", "_bids")

    def __init__(self) -> None:
        self._bids = _Side(1)
        self._asks = _Side(-1)

    def replace(self, bids: Iterable[tuple[int, int]], asks: Iterable[tuple[int, int]]) -> None:
        """Take a snapshot for the whole book; of a price given twice the last counts."""
        self._bids.replace(bids)
        self._asks.replace(asks)

    def apply(self, bids: Iterable[tuple[int, int]], asks: Iterable[tuple[int, int]]) -> None:
        """Set the sizes of some levels, in order."""
        self._bids.apply(bids)
        self._asks.apply(asks)

    @property
    def is_crossed(self) -> bool:
        """Whether a bid is not below an ask, which no exchange's book is: a change was missed."""
        bid, ask = self._bids.best(), self._asks.best()
        return bid is not None and ask is not None and bid >= ask

    def top(self) -> Top | None:
        """Return the best prices; None while a side is empty."""
        bid, ask = self._bids.best(), self._asks.best()
        if bid is None or ask is None:
            return None
        bid_volume = self._bids.volume(IMBALANCE_LEVELS)
        ask_volume = self._asks.volume(IMBALANCE_LEVELS)
        imbalance = (bid_volume - ask_volume) * ONE // (bid_volume + ask_volume)
        return Top(bid, self._bids.sizes[bid], ask, self._asks.sizes[ask], imbalance)

    def bids(self, depth: int | None = None) -> list[tuple[int, int]]:
        """Return the best bids, highest first; all of them without `depth`."""
        return self._bids.levels(depth)

    def asks(self, depth: int | None = None) -> list[tuple[int, int]]:
        """Return the best asks, lowest first; all of them without `depth`."""
        return self._asks.levels(depth)
