"""Coinbase Exchange: `frames` reads what its socket says, `rest` asks its REST interface.

The simulated exchange speaks the same protocol, so it is this class with another code and addresses.
"""

from collections.abc import Sequence

import msgspec

from lakehouse.market.trade import Exchange as ExchangeCode
from streaming.exchanges.coinbase import frames
from streaming.exchanges.coinbase.rest import CoinbaseRest
from streaming.exchanges.rest import RateLimit

CHANNELS = ("matches", "ticker", "heartbeat", "level2_batch")


class Coinbase:
    """An `Exchange` that speaks Coinbase's protocol. Bytes given to `decode` are a frame that is no text."""

    books_from_rest = False
    client_messages_per_second = 100
    max_products = 10_000
    decode = staticmethod(frames.decode)

    def __init__(self, code: ExchangeCode, websocket_url: str, rest_url: str) -> None:
        self.code = code
        self.websocket_url = websocket_url
        self._rest_url = rest_url

    def connect_url(self, products: Sequence[str]) -> str:
        """Return the address, which is the same for all products."""
        return self.websocket_url

    def subscribe(self, products: Sequence[str]) -> list[str]:
        """Return the one subscription to send, within five seconds of connecting."""
        return [_request("subscribe", products, CHANNELS)]

    def resubscribe_book(self, product: str) -> list[str]:
        """Return what makes the exchange send this product's snapshot again."""
        return [_request(what, [product], ["level2_batch"]) for what in ("unsubscribe", "subscribe")]

    def rest(self) -> CoinbaseRest:
        """Return a client of the REST interface."""
        if self.code is ExchangeCode.SIMULATED:  # our own machine: no reason to be slow
            return CoinbaseRest(self._rest_url, RateLimit(per_second=1000.0, burst=1000.0))
        return CoinbaseRest(self._rest_url, RateLimit(per_second=10.0, burst=15.0))


def _request(what: str, products: Sequence[str], channels: Sequence[str]) -> str:
    request = {"type": what, "product_ids": list(products), "channels": list(channels)}
    return msgspec.json.encode(request).decode()
