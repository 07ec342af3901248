"""Exact numbers: decimals at the edges, int64 at scale 10⁻⁸ inside.

`"61837.63"` is `6_183_763_000_000` inside. What a `DECIMAL(18, 8)` can't hold is refused, never rounded.
"""

from decimal import Decimal, InvalidOperation

SCALE = 8
ONE = 10**SCALE
"""The scaled integer that stands for 1."""

LIMIT = 10**18
"""Scaled values are below this: `DECIMAL(18, 8)` has ten digits before the point."""

_FACTORS: tuple[int, ...] = tuple(10 ** (SCALE - decimals) for decimals in range(SCALE + 1))


class InexactNumberError(ValueError):
    """Text that is not a finite decimal which fits `DECIMAL(18, 8)` without rounding."""


def scaled(text: str) -> int:
    """Return a decimal's value times 10⁸, exactly.

    Args:
        text: a decimal as exchanges write it: `"0.00001"`, `"61837.63000000"`, also `"1e-5"`.

    Raises:
        InexactNumberError: no decimal number, not finite, too large, or more than 8 decimals.

    >>> scaled("61837.63")
    6183763000000
    """
    whole, _, fraction = text.partition(".")
    decimals = len(fraction)
    if decimals <= SCALE and 0 < len(whole) <= 10:
        digits = whole + fraction
        if digits.isdigit() and digits.isascii():
            return int(digits) * _FACTORS[decimals]
    return _scaled_slowly(text)


def _scaled_slowly(text: str) -> int:
    if len(text) > 64 or not text.isascii() or "_" in text or text != text.strip():
        raise InexactNumberError(f"{text[:40]!r} is not a decimal number")
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise InexactNumberError(f"{text[:40]!r} is not a decimal number") from None
    if not value.is_finite():
        raise InexactNumberError(f"{text[:40]!r} is not finite")
    if value and value.adjusted() > 9:
        raise InexactNumberError(f"{text[:40]!r} has more than ten digits before the point")
    shifted = value.scaleb(SCALE)
    if shifted != shifted.to_integral_value():
        raise InexactNumberError(f"{text[:40]!r} has more than {SCALE} decimals")
    return int(shifted)


def unscaled(value: int) -> Decimal:
    """Return the decimal that a scaled integer stands for, with all eight decimals.

    >>> unscaled(6183763000000)
    Decimal('61837.63000000')
    """
    return Decimal(value).scaleb(-SCALE)
