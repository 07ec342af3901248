"""Randomness that can be asked for at any place: hashes of counters instead of a stream of numbers.

Only integer arithmetic and IEEE additions, multiplications and divisions are used, in a fixed order, so
that the same seed gives the same bytes on every machine. (`np.exp` and `np.log` differ in their last bit
from one processor to the next.)
"""

import hashlib
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
_TABLE_BITS: Final = 12
_MULTIPLIER_BITS: Final = 16


def key(*parts: object) -> np.uint64:
    """Return the key of one kind of randomness, such as `key(seed, product, "sizes")`."""
    digest = hashlib.blake2b("\x00".join(map(str, parts)).encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def hashed(key: np.uint64 | Hashes, counter: Ints | Hashes) -> Hashes:
    """Return 64 random bits for each counter (SplitMix64); `counter` is an array, `key` broadcasts."""
    z = counter.astype(np.uint64) * _GOLDEN + key
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    mixed: Hashes = z ^ (z >> np.uint64(31))
    return mixed


def uniform(bits: Hashes) -> Floats:
    """Return numbers in [0, 1) from random bits."""
    result: Floats = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return result


def below(bits: Hashes, chance: float) -> npt.NDArray[np.bool_]:
    """Tell for each whether an event of this chance happens."""
    if chance >= 1.0:
        return np.ones(bits.shape, dtype=np.bool_)
    result: npt.NDArray[np.bool_] = bits < np.uint64(int(chance * 2.0**64))
    return result


def octaves(keys: Hashes, periods: Ints, at: Ints) -> Floats:
    """Return value noise: for each period a broken line through random numbers in [-1, 1).

    Args:
        keys: one for each period.
        periods: distance of the line's corners, in the unit of `at`.
        at: places, shape (n,).

    Returns:
        Shape (number of periods, n).
    """
    columns = keys[:, None]
    # Corners of different periods shall not coincide.
    phase = (keys >> np.uint64(40)).astype(np.int64)[:, None]
    corner, rest = np.divmod(at[None, :] + phase, periods[:, None])
    left = uniform(hashed(columns, corner)) * 2.0 - 1.0
    right = uniform(hashed(columns, corner + 1)) * 2.0 - 1.0
    result: Floats = left + (right - left) * (rest.astype(np.float64) / periods[:, None])
    return result


def exponential(x: Floats) -> Floats:
    """Return e to the power of x for |x| < 8, good to 6 digits, the same bits everywhere."""
    y = x * (1.0 / 4096.0)
    result: Floats = 1.0 + y + y * y * 0.5
    for _ in range(12):
        result = result * result
    return result


def _multipliers(spread: float) -> Ints:
    points = (1 << _TABLE_BITS) + 1
    normal = NormalDist()
    quantiles = np.array([normal.inv_cdf((i + 0.5) / points) for i in range(points)])
    result: Ints = np.rint(exponential(spread * quantiles) * 2.0**_MULTIPLIER_BITS).astype(np.int64)
    return result


class LogNormal:
    """Positive integers around a median, spread like a log-normal distribution.

    Args:
        spread: standard deviation of the logarithm.
    """

    def __init__(self, spread: float) -> None:
        self._table = _multipliers(spread)

    def __call__(self, bits: Hashes, median: int) -> Ints:
        """Return one integer of at least 1 for each of the random `bits`; `median` is below 2⁴²."""
        at = (bits >> np.uint64(64 - _TABLE_BITS)).astype(np.int64)
        fraction = ((bits >> np.uint64(20)) & np.uint64(0xFFFF)).astype(np.int64)
        low = self._table[at]
        multiplier = low + ((self._table[at + 1] - low) * fraction >> 16)
        # In two parts, so that a large median times a large multiplier stays within 63 bits.
        whole = multiplier >> _MULTIPLIER_BITS
        part = multiplier & ((1 << _MULTIPLIER_BITS) - 1)
        result: Ints = np.maximum(median * whole + (median * part >> _MULTIPLIER_BITS), 1)
        return result
