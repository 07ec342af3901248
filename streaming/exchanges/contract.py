"""What every exchange looks like to the feed: frames in, events out; and its REST interface.

A new exchange is one folder: an `Exchange` with a pure `decode`, and a `Rest` client.
"""

from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from typing import NamedTuple, Protocol

import msgspec

from lakehouse.market.quarantine import RefusedError
from lakehouse.market.trade import Exchange as ExchangeCode
from lakehouse.market.trade import Trade

Level = tuple[int, int]
"""Price and size, both scaled by 10⁸; size 0 removes the level."""


class Ticker(msgspec.Struct, frozen=True, gc=False):
    """The exchange's own best bid and ask. `event_us` is 0 where the frame carries no time."""

    product: str
    update_id: int
    bid: int
    bid_size: int
    ask: int
    ask_size: int
    event_us: int


class BookSnapshot(msgspec.Struct, frozen=True):
    """A whole book. `product` is empty where the exchange doesn't say (Binance's REST answer)."""

    product: str
    update_id: int
    bids: Sequence[Level]
    asks: Sequence[Level]
    event_us: int


class BookUpdate(msgspec.Struct, frozen=True):
    """Changed levels. Update ids are 0 where the exchange has none (Coinbase)."""

    product: str
    first_update_id: int
    last_update_id: int
    bids: Sequence[Level]
    asks: Sequence[Level]
    event_us: int


class Heartbeat(msgspec.Struct, frozen=True, gc=False):
    """The exchange is alive, and its last trade of this product is `last_trade_id`."""

    product: str
    last_trade_id: int
    event_us: int


class Control(msgspec.Struct, frozen=True):
    """A message that carries no market data: a subscription's answer, a type we don't know."""

    kind: str


class ExchangeError(msgspec.Struct, frozen=True):
    """The exchange refused something we asked for."""

    message: str


Event = Trade | Ticker | BookSnapshot | BookUpdate | Heartbeat | Control | ExchangeError


class TradePage(NamedTuple):
    """A page of historical trades, newest first."""

    trades: Sequence[Trade]
    refused: Sequence[tuple[bytes, RefusedError]]
    """Records that could not be read: their raw bytes and why."""
    older: int | None
    """Ask for trades below this id next; None when there is nothing older."""


class OwnCandle(NamedTuple):
    """A minute in which there was a trade, as the exchange sums it up: decimals with eight places."""

    start_us: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


class Rest(Protocol):
    """An exchange's REST interface, within its rate limit; one for a process.

    Raises `RestError` when the exchange can't be reached or keeps refusing; retries 429 and 5xx itself.
    """

    def trades(
        self, product: str, *, first_id: int | None = None, before_id: int | None = None
    ) -> AsyncIterator[TradePage]:
        """Yield pages of trades with `first_id <= trade_id < before_id`, newest first.

        Without `before_id` from the newest; without `first_id` until the consumer stops. Trades outside
        the range are already taken out.
        """
        ...

    async def trade_id_before(self, product: str, moment_us: int) -> int | None:
        """Return the id of the last trade made before a moment, None where there is none."""
        ...

    async def candles(self, product: str, first_us: int, end_us: int) -> Sequence[OwnCandle]:
        """Return the exchange's own candles of the minutes from `first_us` to before `end_us`, oldest first.

        Both are starts of minutes. Only minutes with a trade have a candle.
        """
        ...

    async def book(self, product: str) -> tuple[bytes, BookSnapshot]:
        """Return a snapshot of the book and its raw bytes."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class RestError(Exception):
    """The exchange's REST interface did not answer usefully; the text says what was asked and why."""


class Exchange(Protocol):
    """One exchange: its name, its addresses, and how to read what it says. Stateless."""

    code: ExchangeCode
    websocket_url: str
    """Complete, where the subscription is part of it (Binance)."""

    books_from_rest: bool
    """True where the book's snapshot has to be fetched over REST (Binance)."""

    client_messages_per_second: int
    """How many frames a client may send."""

    max_products: int
    """How many products one connection can carry."""

    def connect_url(self, products: Sequence[str]) -> str:
        """Return the address to connect to for these products."""
        ...

    def subscribe(self, products: Sequence[str]) -> list[str]:
        """Return the frames to send after connecting."""
        ...

    def resubscribe_book(self, product: str) -> list[str]:
        """Return the frames that bring a fresh snapshot of one product's book, if the socket can."""
        ...

    def decode(self, frame: str | bytes) -> Event:
        """Return what a frame says.

        Numbers are checked (finite, exact, positive where they must be) and so are the product's form,
        ids and the time's form; whether the product is configured and the time plausible is the feed's
        to decide.

        Raises:
            RefusedError: this frame goes to quarantine.
        """
        ...

    def rest(self) -> Rest:
        """Return a client of the REST interface. The caller closes it."""
        ...
