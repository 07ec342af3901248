"""Which exchange a code stands for, with the addresses of the settings."""

from collections.abc import Sequence

from lakehouse.market.trade import Exchange as ExchangeCode
from lakehouse.settings import Settings
from streaming.exchanges.binance import Binance
from streaming.exchanges.coinbase import Coinbase
from streaming.exchanges.contract import Exchange


def exchange_for(code: ExchangeCode, settings: Settings, products: Sequence[str] = ()) -> Exchange:
    """Return an exchange; `products` are those whose names are mapped exactly (Binance)."""
    if code is ExchangeCode.BINANCE:
        return Binance(settings.binance_websocket_url, settings.binance_rest_url, products)
    if code is ExchangeCode.COINBASE:
        return Coinbase(code, settings.coinbase_websocket_url, settings.coinbase_rest_url)
    host = settings.simulated_host or settings.host
    return Coinbase(
        code,
        f"ws://{host}:{settings.simulated_websocket_port}",
        f"http://{host}:{settings.simulated_rest_port}",
    )
