"""The price path: a continuous function of time that can be asked for at any second.

The logarithm of the price is a sum of noise with periods from 2 s to half a year, each as strong as in a
Brownian motion; so it looks like one at every scale and still stays within a factor of about ten of the
base price. Volatility changes slowly and multiplies the quick parts; jumps happen within one second and
fade over six hours. Every product follows a common factor besides its own.
"""

import numpy as np

from streaming.exchanges.simulated.noise import Floats, Ints, exponential, hashed, key, octaves, uniform
from streaming.exchanges.simulated.products import ProductModel

_PERIODS: Ints = 2 ** np.arange(1, 25, dtype=np.int64)
_QUICK = 12
"""The first periods, up to 4,096 s, are those whose strength the volatility changes."""

_CALM_PERIODS: Ints = np.array([900, 3_600, 14_400, 86_400], dtype=np.int64)
_CALM_WEIGHTS: Floats = np.array([0.3, 0.5, 0.5, 0.4])
_YEAR_SECONDS = 31_557_600
_COMMON_VOLATILITY = 0.45
_JUMP_BLOCK = 21_600
_JUMP_CHANCE = 0.3
_JUMP_SIZE = 0.012
_LARGEST_LOG = 7.0


class _Factor:
    """One source of movement: octaves and jumps."""

    def __init__(self, volatility: float, *name: object) -> None:
        self._keys = np.array([key(*name, "octave", int(period)) for period in _PERIODS])
        self._amplitudes = volatility * np.sqrt(_PERIODS / (2.0 * _YEAR_SECONDS))
        self._jumps = key(*name, "jumps")

    def at(self, seconds: Ints, volatility: Floats) -> Floats:
        lines = octaves(self._keys, _PERIODS, seconds) * self._amplitudes[:, None]
        # Summed one by one: the order of np.sum's additions depends on the shape.
        quick = np.zeros(len(seconds))
        for line in lines[:_QUICK]:
            quick += line
        total = quick * volatility
        for line in lines[_QUICK:]:
            total += line
        return total + self._jumped(seconds)

    def _jumped(self, seconds: Ints) -> Floats:
        total = np.zeros(len(seconds))
        block = seconds // _JUMP_BLOCK
        for ago in (0, 1):
            bits = hashed(self._jumps, block - ago)
            moment = (block - ago) * _JUMP_BLOCK + (bits % np.uint64(_JUMP_BLOCK)).astype(np.int64)
            since = seconds - moment
            happened = uniform(hashed(self._jumps, block - ago + 2**40)) < _JUMP_CHANCE
            size = (uniform(hashed(self._jumps, block - ago + 2**41)) * 2.0 - 1.0) * _JUMP_SIZE
            fading = 1.0 - since.astype(np.float64) / _JUMP_BLOCK
            total += np.where(happened & (since >= 0) & (since < _JUMP_BLOCK), size * fading, 0.0)
        return total


class PricePath:
    """The middle price of one product.

    Args:
        seed: of the whole market; products with the same seed share the common factor.
        model: the product.
    """

    def __init__(self, seed: int, model: ProductModel) -> None:
        self._model = model
        self._common = _Factor(_COMMON_VOLATILITY * model.beta, seed, "common")
        self._own = _Factor(model.volatility, seed, model.product)
        self._calm = np.array([key(seed, "volatility", int(period)) for period in _CALM_PERIODS])

    def volatility(self, seconds: Ints) -> Floats:
        """Return how strongly prices move at these seconds: 0.2 to 5.5, 1 on average."""
        log = np.zeros(len(seconds))
        for line, weight in zip(octaves(self._calm, _CALM_PERIODS, seconds), _CALM_WEIGHTS, strict=True):
            log += line * weight
        return exponential(log)

    def at(self, seconds: Ints) -> Floats:
        """Return the middle price in quote units at these seconds since 1970."""
        volatility = self.volatility(seconds)
        log = self._common.at(seconds, volatility) + self._own.at(seconds, volatility)
        return self._model.base_price * exponential(np.clip(log, -_LARGEST_LOG, _LARGEST_LOG))
