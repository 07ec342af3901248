"""The market: every trade of every product, as a function of seed, rate and time.

Time runs in steps of 50 ms. At the start of a step the book stands around the middle price (`book`);
the step's trades eat into it from its best levels, and the next step's book is refilled. Because each
trade's attributes are hashes of its id, any range of seconds is made in one go, and is always the same.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from lakehouse.market.time import SECOND_US
from lakehouse.market.trade import Side
from streaming.exchanges.simulated.activity import GENESIS_US, Activity, second_floor
from streaming.exchanges.simulated.ladder import STEP_US, Ladder
from streaming.exchanges.simulated.noise import Floats, Ints, LogNormal, below, hashed, key
from streaming.exchanges.simulated.prices import PricePath
from streaming.exchanges.simulated.products import product_model

MARKET_TRADE: Final = np.dtype(
    [
        ("trade_id", "<i8"),
        ("event_us", "<i8"),
        ("price", "<i8"),
        ("size", "<i8"),
        ("order", "<i8"),
        ("middle", "<i8"),
        ("depth", "<i8"),
        ("taker_side", "u1"),
        ("clears", "?"),
    ]
)
"""A trade and how it came about; price and size scaled by 10⁸, time in µs.

`order` is the first trade id of the taker's order, `middle` the book level below the middle price, `depth`
how many levels from the best one of the step's book the trade happened, `clears` whether it took all that
was left of its level, `taker_side` a `lakehouse.market.trade.Side`.
"""

Trades = npt.NDArray[np.void]
"""An array of `MARKET_TRADE`, ordered by trade_id, which is also the order of time."""

STEPS: Final = SECOND_US // STEP_US
DEEPEST_TRADE: Final = 12
"""A step's trades go at most this many levels deep."""

_FOLLOWS = 0.45
_LEAN = 0.2
_CLEARED_LEVELS = 2.0
_CLEARS_AT_MOST = 0.25
_SIZES = LogNormal(1.5)


class ProductMarket:
    """The trades of one product.

    Args:
        seed: of the market.
        product: any product name.
        rate: trades a second on average.
    """

    def __init__(self, seed: int, product: str, rate: float) -> None:
        self.model = product_model(product)
        self.path = PricePath(seed, self.model)
        self.activity = Activity(seed, self.model, self.path, rate)
        self.ladder = Ladder(seed, self.model)
        self.rate = rate
        self._times = key(seed, product, "times")
        self._sides = key(seed, product, "sides")
        self._amounts = key(seed, product, "amounts")
        self._clears = key(seed, product, "clears")
        self._clear_chance = min(_CLEARS_AT_MOST, _CLEARED_LEVELS / max(rate / STEPS / 2, 1e-9))

    def middles(self, seconds: Ints, steps: Ints) -> Ints:
        """Return the book level just below the middle price, for steps (0 to 19) of seconds."""
        return self._middles(*self._prices(seconds), steps)

    def _prices(self, seconds: Ints) -> tuple[Floats, Floats]:
        """Return the middle price at each second's start and end."""
        wanted = np.unique(np.concatenate((seconds, seconds + 1)))
        prices = self.path.at(wanted)
        at = np.searchsorted(wanted, seconds)
        return prices[at], prices[at + 1]

    def _middles(self, start: Floats, end: Floats, steps: Ints) -> Ints:
        unit = self.model.grid * 10.0**-self.model.price_decimals
        price = start + (end - start) * (steps / STEPS)
        result: Ints = np.maximum(np.floor(price / unit), DEEPEST_TRADE + 2).astype(np.int64)
        return result

    def seconds(self, first_second: int, end_second: int) -> Trades:
        """Return the trades of whole seconds, from `first_second` to before `end_second`."""
        counts = self.activity.counts(first_second, end_second)
        active = np.flatnonzero(counts)
        total = int(counts.sum())
        trades: Trades = np.zeros(total, dtype=MARKET_TRADE)
        if total == 0:
            return trades
        place = np.arange(total, dtype=np.int64)
        ids = self.activity.counted(first_second) + 1 + place
        busy_counts = counts[active]
        count = np.repeat(busy_counts, busy_counts)
        within = place - np.repeat(np.cumsum(busy_counts) - busy_counts, busy_counts)
        second = np.repeat(active + first_second, busy_counts)

        bits = hashed(self._times, ids)
        leads = (within == 0) | ~below(bits, _FOLLOWS)
        leader = np.maximum.accumulate(np.where(leads, place, 0))
        jitter = ((bits >> np.uint64(8)) & np.uint64(0xFFFFF)).astype(np.int64)
        # One trade in each of `count` equal parts of the second: sorted without sorting.
        offset = (((within << 20) + jitter) * SECOND_US // (count << 20))[leader]
        step = offset // STEP_US
        price_before, price_after = self._prices(second)
        middle = self._middles(price_before, price_after, step)
        buys = self._buys(ids[leader], price_after > price_before)
        clears = below(hashed(self._clears, ids), self._clear_chance)
        depth = np.zeros(total, dtype=np.int64)
        for taken in (buys, ~buys):
            depth[taken], clears[taken] = _walk((second * STEPS + step)[taken], clears[taken])

        trades["trade_id"] = ids
        trades["event_us"] = second * SECOND_US + offset
        trades["price"] = self.ladder.price(np.where(buys, middle + 1 + depth, middle - depth))
        trades["size"] = _SIZES(hashed(self._amounts, ids), self.model.median_lots) * self.model.lot
        trades["order"] = ids[leader]
        trades["middle"] = middle
        trades["depth"] = depth
        trades["taker_side"] = np.where(buys, Side.BUY, Side.SELL)
        trades["clears"] = clears
        return trades

    def between(self, first_us: int, end_us: int) -> Trades:
        """Return the trades with `first_us <= event_us < end_us`."""
        first_us = max(first_us, GENESIS_US)
        if end_us <= first_us:
            return np.zeros(0, dtype=MARKET_TRADE)
        trades = self.seconds(second_floor(first_us), second_floor(end_us - 1) + 1)
        low, high = np.searchsorted(trades["event_us"], [first_us, end_us], side="left")
        return trades[low:high]

    def by_id(self, first_id: int, end_id: int) -> Trades:
        """Return the trades with `first_id <= trade_id < end_id`; ids start at 1."""
        first_id = max(first_id, 1)
        if end_id <= first_id:
            return np.zeros(0, dtype=MARKET_TRADE)
        trades = self.seconds(self.activity.second_of(first_id), self.activity.second_of(end_id - 1) + 1)
        skipped = first_id - int(trades["trade_id"][0])
        return trades[skipped : skipped + end_id - first_id]

    def last_id_before(self, moment_us: int) -> int:
        """Return the id of the last trade with `event_us < moment_us`, 0 where there is none."""
        second, rest = divmod(moment_us, SECOND_US)
        counted = self.activity.counted(second)
        if rest == 0 or self.activity.counted(second + 1) == counted:
            return counted
        return counted + int(np.searchsorted(self.seconds(second, second + 1)["event_us"], moment_us))

    def _buys(self, orders: Ints, rises: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Tell which taker orders buy: more of them while the price rises."""
        bits = hashed(self._sides, orders)
        return np.where(rises, below(bits, 0.5 + _LEAN), below(bits, 0.5 - _LEAN))


def _walk(steps: Ints, clears: npt.NDArray[np.bool_]) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Return how deep each trade of one side is in its step's book, and which trades clear a level.

    A step starts at its best level; each trade that clears one sends the next trade a level deeper.
    """
    cleared: Ints = np.cumsum(clears) - clears
    first = np.ones(len(steps), dtype=np.bool_)
    first[1:] = steps[1:] != steps[:-1]
    start = np.maximum.accumulate(np.where(first, np.arange(len(steps)), 0))
    depth: Ints = cleared - cleared[start]
    capped = depth >= DEEPEST_TRADE
    return np.minimum(depth, DEEPEST_TRADE), clears & ~capped


class SimulatedMarket:
    """All products' trades, without a server: the truth that tests compare with.

    A product's prices depend on the seed only; its trades also on its own rate, which is the total rate
    times its share. So the same (seed, products, rate) is the same market, to the byte.

    Args:
        seed: any integer.
        products: their names.
        rate: trades a second, all products together, on average.

    >>> market = SimulatedMarket(7, ["BTC-USD"], 10.0)
    >>> trades = market.trades("BTC-USD", 1_790_000_000_000_000, 1_790_000_060_000_000)
    >>> bool((np.diff(trades["trade_id"]) == 1).all())
    True
    """

    def __init__(self, seed: int, products: Sequence[str], rate: float) -> None:
        if not products:
            raise ValueError("a market needs a product")
        models = [product_model(product) for product in products]
        total = sum(model.weight for model in models)
        self.seed = seed
        self.products = tuple(products)
        self._markets = {
            model.product: ProductMarket(seed, model.product, rate * model.weight / total) for model in models
        }

    def __getitem__(self, product: str) -> ProductMarket:
        """Return one product's market; raises `KeyError` for a product it doesn't have."""
        return self._markets[product]

    def __contains__(self, product: object) -> bool:
        return product in self._markets

    def trades(self, product: str, first_us: int, end_us: int) -> Trades:
        """Return a product's trades with `first_us <= event_us < end_us`, as `MARKET_TRADE`."""
        return self[product].between(first_us, end_us)
