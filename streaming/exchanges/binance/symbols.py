"""Binance's symbols and our products: BTCUSDT is BTC-USDT."""

from collections.abc import Sequence
from typing import Final

from lakehouse.market.product import is_product

QUOTE_CURRENCIES: Final = (
    *("FDUSD", "USDT", "USDC", "BUSD", "TUSD", "USDP", "USD1", "DAI", "AEUR", "EURI", "EUR", "GBP", "AUD"),
    *("TRY", "BRL", "JPY", "MXN", "ARS", "PLN", "RON", "UAH", "ZAR", "COP", "CZK", "NGN", "RUB", "IDRT"),
    *("BIDR", "BVND", "BKRW", "USD", "BTC", "ETH", "BNB", "SOL", "XRP", "TRX", "DOGE", "DOT", "VAI", "PAX"),
)
"""What Binance quotes prices in; tells where an unknown symbol is to be cut."""


class Symbols:
    """The mapping both ways. Configured products map exactly; other symbols are cut before their quote.

    >>> Symbols(["BTC-USDT"]).product("ETHBTC")
    'ETH-BTC'
    """

    def __init__(self, products: Sequence[str] = ()) -> None:
        self._products = {self.symbol(product): product for product in products}

    @staticmethod
    def symbol(product: str) -> str:
        """Return Binance's name of a product."""
        return product.replace("-", "", 1)

    def product(self, symbol: str) -> str | None:
        """Return the product of a symbol, None where there can be none."""
        known = self._products.get(symbol)
        if known is not None:
            return known
        for quote in sorted(QUOTE_CURRENCIES, key=len, reverse=True):
            name = f"{symbol.removesuffix(quote)}-{quote}"
            if symbol.endswith(quote) and is_product(name):
                if len(self._products) < 10_000:  # names from outside must not fill the memory
                    self._products[symbol] = name
                return name
        return None
