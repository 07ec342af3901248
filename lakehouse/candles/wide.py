"""Exact sums in 128 bits over numpy arrays, which know 64.

Price × size has up to 94 bits, a sum of sizes more than 63. Numbers are cut into limbs of 32 bits, the limbs
are summed in 64 bits, and the carries are moved on once at the end. All numbers here are non-negative.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

WIDE: Final = np.dtype([("low", "<u8"), ("high", "<i8")])
"""A non-negative 128-bit integer, laid out as Arrow lays out a decimal."""

LARGEST: Final = 10**38 - 1
"""The largest sum: what a decimal of 38 digits holds."""

LARGEST_PRODUCT: Final = 10**28
"""Products reach this at most; the feed refuses trades above it (10¹² in the quote currency)."""

_MOST_TERMS = 2**30
_MASK = np.uint64(0xFFFF_FFFF)
_SHIFT = np.uint64(32)

Wide = npt.NDArray[np.void]
UInt64s = npt.NDArray[np.uint64]


class SumTooLargeError(ArithmeticError):
    """A number is negative, or a product or sum is larger than any real market's: the trades are damaged."""


def sums(values: npt.NDArray[np.int64], starts: npt.NDArray[np.intp]) -> Wide:
    """Return the sum of each group; groups are consecutive and begin at `starts`.

    Raises:
        SumTooLargeError: a value is negative.
    """
    unsigned = _unsigned(values)
    return _assembled(_group_sums([unsigned & _MASK, unsigned >> _SHIFT], starts))


def sums_of_products(
    left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], starts: npt.NDArray[np.intp]
) -> Wide:
    """Return the sum of left × right of each group; groups are consecutive and begin at `starts`.

    Raises:
        SumTooLargeError: a factor is negative or a product above `LARGEST_PRODUCT`.
    """
    a, b = _unsigned(left), _unsigned(right)
    a_low, a_high, b_low, b_high = a & _MASK, a >> _SHIFT, b & _MASK, b >> _SHIFT
    lowest = a_low * b_low
    # Below 2⁶⁴ as no factor reaches 2⁶³.
    middle = a_low * b_high + a_high * b_low
    second = (lowest >> _SHIFT) + (middle & _MASK)
    top = (middle >> _SHIFT) + a_high * b_high
    if len(top) and int(top.max()) > LARGEST_PRODUCT >> 64:
        at = int(top.argmax())
        raise SumTooLargeError(f"{left[at]} x {right[at]} is more than {LARGEST_PRODUCT}")
    return _assembled(_group_sums([lowest & _MASK, second, top], starts))


def sums_of_wide(values: Wide, starts: npt.NDArray[np.intp]) -> Wide:
    """Return the sum of each group of 128-bit numbers; groups are consecutive and begin at `starts`.

    Raises:
        SumTooLargeError: a sum has more than 38 digits.
    """
    low, high = np.ascontiguousarray(values["low"]), _unsigned(values["high"])
    return _assembled(_group_sums([low & _MASK, low >> _SHIFT, high & _MASK, high >> _SHIFT], starts))


def added(left: Wide, right: Wide) -> Wide:
    """Return left + right, element by element.

    Raises:
        SumTooLargeError: a sum has more than 38 digits.
    """
    pairs = np.stack([left, right], axis=1).reshape(-1)
    return sums_of_wide(pairs, np.arange(0, len(pairs), 2))


def to_int(value: np.void) -> int:
    """Return one 128-bit number as an integer."""
    return (int(value["high"]) << 64) + int(value["low"])


def as_limbs(values: Wide) -> npt.NDArray[np.int64]:
    """Return 128-bit numbers as 64-bit limbs, low first, shape (n, 2): what `wide_decimals` takes."""
    return np.ascontiguousarray(values).view(np.int64).reshape(-1, 2)


def _unsigned(values: npt.NDArray[np.int64]) -> UInt64s:
    contiguous = np.ascontiguousarray(values)
    if len(contiguous) and int(contiguous.min()) < 0:
        raise SumTooLargeError(f"{int(contiguous.min())} is negative")
    return contiguous.view(np.uint64)


def _group_sums(limbs: list[UInt64s], starts: npt.NDArray[np.intp]) -> list[UInt64s]:
    if len(limbs[0]) > _MOST_TERMS:
        raise SumTooLargeError(f"{len(limbs[0])} terms at once: sum in parts of {_MOST_TERMS}")
    return [np.add.reduceat(limb, starts) if len(starts) else limb[:0] for limb in limbs]


def _assembled(limbs: list[UInt64s]) -> Wide:
    """Move the carries on and put the limbs together; each limb is a sum below 2⁶⁴."""
    count = len(limbs[0])
    zero = np.zeros(count, dtype=np.uint64)
    carry, pieces = zero, []
    for limb in [*limbs, zero, zero, zero][:4]:
        total = limb + carry
        pieces.append(total & _MASK)
        carry = total >> _SHIFT
    wide = np.empty(count, dtype=WIDE)
    wide["low"] = pieces[0] | (pieces[1] << _SHIFT)
    high = pieces[2] | (pieces[3] << _SHIFT)
    limit = np.uint64(LARGEST >> 64)
    if count and (carry.any() or int(high.max()) > limit):
        raise SumTooLargeError("a sum has more than 38 digits")
    wide["high"] = high.astype(np.int64)
    for at in np.flatnonzero(high == limit).tolist():
        if to_int(wide[at]) > LARGEST:
            raise SumTooLargeError("a sum has more than 38 digits")
    return wide
