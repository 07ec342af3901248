"""What is particular about a simulated product: its price level, steps, liquidity and temper."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lakehouse.market.exact import ONE, SCALE
from lakehouse.market.product import checked_product
from streaming.exchanges.simulated.noise import hashed, key

_DOLLARS = frozenset({"USD", "USDT", "USDC", "EUR", "GBP"})
_LEVEL_SPACING = 1.5e-5
_MEDIAN_VALUE = 180.0


class _Known(NamedTuple):
    price: float
    price_decimals: int
    size_decimals: int
    weight: float
    beta: float
    volatility: float
    quiet: float


_KNOWN = {
    "BTC": _Known(91_000.0, 2, 8, 40.0, 0.85, 0.22, 0.0),
    "ETH": _Known(3_100.0, 2, 8, 26.0, 1.1, 0.33, 0.0),
    "SOL": _Known(142.0, 2, 8, 14.0, 1.25, 0.5, 0.004),
    "DOGE": _Known(0.1612, 5, 1, 9.0, 1.35, 0.6, 0.02),
    "AVAX": _Known(15.3, 3, 8, 6.0, 1.3, 0.6, 0.05),
    "LINK": _Known(13.9, 3, 2, 5.0, 1.2, 0.55, 0.08),
}


@dataclass(frozen=True)
class ProductModel:
    """One product's constants. Prices in quote units, sizes scaled by 10⁸."""

    product: str
    base_price: float
    """The level around which the price moves."""
    price_decimals: int
    size_decimals: int
    grid: int
    """Average distance of two book levels, in ticks."""
    weight: float
    """Its part of all trades, relative to the other products' weights."""
    beta: float
    """How strongly it follows the market's common factor."""
    volatility: float
    """Yearly volatility of its own factor."""
    quiet: float
    """Chance that a minute has no trade at all."""

    @property
    def tick(self) -> int:
        """The smallest step of a price, scaled by 10⁸."""
        return int(10 ** (SCALE - self.price_decimals))

    @property
    def lot(self) -> int:
        """The smallest step of a size, scaled by 10⁸."""
        return int(10 ** (SCALE - self.size_decimals))

    @property
    def median_lots(self) -> int:
        """The median size of a trade, in lots."""
        return max(1, int(_MEDIAN_VALUE / self.base_price * ONE) // self.lot)


def product_model(product: str) -> ProductModel:
    """Return the constants of any product; those nobody knows are derived from the name.

    Raises:
        InvalidProductError: the name hasn't a product's form.
    """
    base, _, quote = checked_product(product).partition("-")
    known = _KNOWN.get(base) if quote in _DOLLARS else None
    if known is None:
        known = _derived(product)
    grid = max(1, round(known.price * _LEVEL_SPACING * 10**known.price_decimals))
    return ProductModel(
        product,
        known.price,
        known.price_decimals,
        known.size_decimals,
        grid,
        known.weight,
        known.beta,
        known.volatility,
        known.quiet,
    )


def _derived(product: str) -> _Known:
    bits = hashed(key(product, "product"), np.arange(5)).tolist()
    mantissa = 1.0 + 9.0 * (bits[0] % 9973) / 9973
    exponent = bits[1] % 5 - 2
    return _Known(
        price=mantissa * (100.0, 0.01, 0.1, 1.0, 10.0)[exponent],
        price_decimals=(3, 6, 5, 4, 4)[exponent],
        size_decimals=(8, 1, 2, 4, 8)[exponent],
        weight=0.5 + (bits[2] % 1000) / 250,
        beta=0.9 + (bits[3] % 1000) / 1500,
        volatility=0.4 + (bits[4] % 1000) / 2000,
        quiet=0.03 + (bits[2] >> 20) % 1000 / 8000,
    )
