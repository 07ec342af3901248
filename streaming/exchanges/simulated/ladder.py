"""The price levels of a product's book and what rests on them while nobody trades."""

from typing import Final

import numpy as np

from streaming.exchanges.simulated.noise import Ints, LogNormal, hashed, key
from streaming.exchanges.simulated.products import ProductModel

STEP_US: Final = 50_000
"""The book changes in steps of this length, the interval of `level2_batch`."""

_SHORTEST = 24
_LONGEST = 1_000
_RESTING = 6
_SIZES = LogNormal(1.1)


class Ladder:
    """Levels are numbered from the lowest price up; their distances are uneven but fixed.

    What rests on a level changes now and then, each level at its own pace (1.2 s to 50 s).
    """

    def __init__(self, seed: int, model: ProductModel) -> None:
        self._grid = model.grid
        self._tick = model.tick
        self._lot = model.lot
        self._median = model.median_lots * _RESTING
        self._jitter = key(seed, model.product, "ladder")
        self._pace = key(seed, model.product, "pace")
        self._resting = key(seed, model.product, "resting")

    def price(self, level: Ints) -> Ints:
        """Return the levels' prices, scaled by 10⁸: strictly rising with the level."""
        jitter = (hashed(self._jitter, level) % np.uint64(self._grid)).astype(np.int64)
        return (level * self._grid + jitter) * self._tick

    def resting(self, level: Ints, step: Ints) -> Ints:
        """Return the sizes that rest on levels at steps since 1970, scaled by 10⁸ and above 0."""
        bits = hashed(self._pace, level)
        pace = _SHORTEST + (bits % np.uint64(_LONGEST - _SHORTEST)).astype(np.int64)
        spell = (step + (bits >> np.uint64(40)).astype(np.int64)) // pace
        sizes = _SIZES(hashed(bits + self._resting, spell), self._median)
        return sizes * self._lot
