"""Binance spot: `frames` reads what its streams say, `rest` asks its REST interface, `symbols` maps names."""

from collections.abc import Sequence
from typing import Final

from lakehouse.market.trade import Exchange as ExchangeCode
from streaming.exchanges.binance.frames import Decoder
from streaming.exchanges.binance.rest import BinanceRest
from streaming.exchanges.binance.symbols import Symbols
from streaming.exchanges.contract import Event

STREAMS: Final = ("trade", "bookTicker", "depth@100ms")
_MAX_STREAMS: Final = 1024


class Binance:
    """An `Exchange`. Bytes given to `decode` are a frame that is no text.

    The subscription is part of the address, so that nothing has to be sent. A connection is cut after
    24 hours: one reconnect like any other.
    """

    code = ExchangeCode.BINANCE
    books_from_rest = True
    client_messages_per_second = 5
    max_products = _MAX_STREAMS // len(STREAMS)

    def __init__(self, websocket_url: str, rest_url: str, products: Sequence[str] = ()) -> None:
        self.websocket_url = websocket_url
        self._rest_url = rest_url
        self._symbols = Symbols(products)
        self._decoder = Decoder(self._symbols)

    def connect_url(self, products: Sequence[str]) -> str:
        """Return the combined stream's address."""
        names = (f"{Symbols.symbol(product).lower()}@{stream}" for product in products for stream in STREAMS)
        return f"{self.websocket_url}/stream?streams={'/'.join(names)}"

    def subscribe(self, products: Sequence[str]) -> list[str]:
        """Return nothing: the address is the subscription."""
        return []

    def resubscribe_book(self, product: str) -> list[str]:
        """Return nothing: a snapshot comes over REST."""
        return []

    def decode(self, frame: str | bytes) -> Event:
        """Return what a frame says; see `Exchange.decode`."""
        return self._decoder.decode(frame)

    def rest(self) -> BinanceRest:
        """Return a client of the REST interface."""
        return BinanceRest(self._rest_url, self._symbols)
