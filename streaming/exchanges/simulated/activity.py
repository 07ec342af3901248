"""How many trades happen when: a trade's id from its time and the other way round, without history.

A day's number of trades follows from the day alone, and is then spread over its seconds: more in volatile
and busy times, in bursts, none in quiet minutes. Adding up the days since the first one gives the ids.
"""

import threading
from collections import OrderedDict
from datetime import date

import numpy as np

from lakehouse.market.time import DAY_US, SECOND_US, day_start_us
from streaming.exchanges.simulated.noise import Ints, below, hashed, key, octaves, uniform
from streaming.exchanges.simulated.prices import PricePath
from streaming.exchanges.simulated.products import ProductModel

GENESIS = date(2020, 1, 1)
"""Trade 1 of every product happened on this day."""

GENESIS_US = day_start_us(GENESIS)
DAY_SECONDS = 86_400
_GENESIS_DAY = GENESIS_US // DAY_US
_LAST_DAY = _GENESIS_DAY + 366 * 40
_CACHED_DAYS = 6
_BUSY_PERIODS: Ints = np.array([5, 23, 97], dtype=np.int64)
_BURST_CHANCE = 1 / 240
_BURST_SECONDS = 3
_BURST_STRENGTH = 5.0


class Activity:
    """The numbers of one product's trades.

    Args:
        seed: of the market.
        model: the product.
        path: its prices; volatile times are busy times.
        rate: trades a second on average.
    """

    def __init__(self, seed: int, model: ProductModel, path: PricePath, rate: float) -> None:
        self._path = path
        self._quiet_chance = model.quiet
        self._busy = np.array([key(seed, model.product, "busy", int(period)) for period in _BUSY_PERIODS])
        self._seconds = key(seed, model.product, "seconds")
        self._bursts = key(seed, model.product, "bursts")
        self._quiet = key(seed, model.product, "quiet")
        days = np.arange(_GENESIS_DAY, _LAST_DAY, dtype=np.int64)
        factor = 0.8 + 0.4 * uniform(hashed(key(seed, model.product, "days"), days))
        counts = np.floor(rate * DAY_SECONDS * factor).astype(np.int64)
        self._before_day: Ints = np.concatenate(([0], np.cumsum(counts)))
        self._cached: OrderedDict[int, Ints] = OrderedDict()
        # Candles are computed in a thread besides the stream's.
        self._lock = threading.Lock()

    def counted(self, second: int) -> int:
        """Return how many trades happened before a second since 1970: the last id before it."""
        day, rest = divmod(second, DAY_SECONDS)
        index = day - _GENESIS_DAY
        if index < 0:
            return 0
        if index >= len(self._before_day) - 1:
            return int(self._before_day[-1])
        return int(self._before_day[index] + self._day(day)[rest])

    def counts(self, first_second: int, end_second: int) -> Ints:
        """Return the number of trades of each second from `first_second` to before `end_second`."""
        parts = []
        second = first_second
        while second < end_second:
            day, rest = divmod(second, DAY_SECONDS)
            stop = min(end_second - day * DAY_SECONDS, DAY_SECONDS)
            if _GENESIS_DAY <= day < _LAST_DAY:
                parts.append(np.diff(self._day(day)[rest : stop + 1]))
            else:
                parts.append(np.zeros(stop - rest, dtype=np.int64))
            second = day * DAY_SECONDS + stop
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def second_of(self, trade_id: int) -> int:
        """Return the second since 1970 in which a trade happens.

        Raises:
            ValueError: no such trade in the forty years from the first one.
        """
        if not 1 <= trade_id <= int(self._before_day[-1]):
            raise ValueError(f"there is no trade {trade_id}")
        index = int(np.searchsorted(self._before_day, trade_id, side="left")) - 1
        within = trade_id - int(self._before_day[index])
        day = _GENESIS_DAY + index
        return day * DAY_SECONDS + int(np.searchsorted(self._day(day), within, side="left")) - 1

    def _day(self, day: int) -> Ints:
        """Return the trades of a day before each of its seconds, and at its end: 86,401 numbers."""
        with self._lock:
            cached = self._cached.get(day)
            if cached is None:
                cached = self._cached[day] = self._counted_in(day)
                if len(self._cached) > _CACHED_DAYS:
                    self._cached.popitem(last=False)
            self._cached.move_to_end(day)
            return cached

    def _counted_in(self, day: int) -> Ints:
        index = day - _GENESIS_DAY
        total = int(self._before_day[index + 1] - self._before_day[index])
        weights = np.cumsum(self._weights(day))
        spread = np.floor(weights / float(weights[-1]) * float(total)).astype(np.int64)
        result: Ints = np.concatenate(([0], spread))
        return result

    def _weights(self, day: int) -> Ints:
        minutes = np.arange(day * 1440, (day + 1) * 1440, dtype=np.int64)
        busy = np.ones(1440)
        for line in octaves(self._busy, _BUSY_PERIODS, minutes):
            busy = busy * (1.0 + 0.5 * line)
        volatility = np.clip(self._path.volatility(minutes * 60), 0.4, 2.5)
        busy = busy * volatility
        busy[below(hashed(self._quiet, minutes), self._quiet_chance)] = 0.0
        if not busy.any():
            busy[:] = 1.0
        seconds = np.arange(day * DAY_SECONDS, (day + 1) * DAY_SECONDS, dtype=np.int64)
        chance = uniform(hashed(self._seconds, seconds))
        # u / (1.2 - u) has a long tail: seconds differ by more than chance alone would make them.
        uneven = 0.35 + chance / (1.2 - chance)
        burst = below(hashed(self._bursts, seconds // _BURST_SECONDS), _BURST_CHANCE)
        uneven = np.where(burst, uneven * _BURST_STRENGTH, uneven)
        weights: Ints = np.floor(np.repeat(busy, 60) * uneven * 1024.0).astype(np.int64)
        return weights


def second_floor(us: int) -> int:
    """Return the second since 1970 that a time in microseconds lies in."""
    return us // SECOND_US
