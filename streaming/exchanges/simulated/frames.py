"""What the exchange says, in Coinbase Exchange's words: JSON bytes, and the same as WebSocket frames."""

import struct
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from lakehouse.market.book import BookSide
from lakehouse.market.exact import ONE, SCALE
from lakehouse.market.time import MINUTE_US, SECOND_US, to_iso
from lakehouse.market.trade import Side
from streaming.exchanges.simulated.book import BookState, Change, Tops
from streaming.exchanges.simulated.market import Trades
from streaming.exchanges.simulated.noise import hashed, key
from streaming.exchanges.simulated.products import ProductModel

_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_UUID_PLACES = np.array([i for i in range(36) if i not in (8, 13, 18, 23)])
_UUID_KEYS = (key("order", 1), key("order", 2))
_SEQUENCES_A_TRADE = 10
_TAKER = {Side.BUY: "buy", Side.SELL: "sell"}
_SIDE_NAMES = {BookSide.BID: "buy", BookSide.ASK: "sell"}

encode = msgspec.json.encode


def _short_header(length: int) -> bytes:
    return struct.pack("!BB", 0x81, length) if length < 126 else struct.pack("!BBH", 0x81, 126, length)


_HEADERS = [_short_header(length) for length in range(2048)]


def wire(payload: bytes) -> bytes:
    """Return the bytes of an unmasked, uncompressed WebSocket text frame.

    Made here and not by websockets' `send`, because one frame goes to many clients, thousands of times a
    second, and many frames leave in one write.
    """
    length = len(payload)
    if length < 2048:
        return _HEADERS[length] + payload
    if length < 65536:
        return _short_header(length) + payload
    return struct.pack("!BBQ", 0x81, 127, length) + payload


def decimal_text(value: int, decimals: int = SCALE) -> str:
    """Return a scaled integer as a decimal with this many decimals; `value` is 0 or more.

    >>> decimal_text(6183763000000, 2)
    '61837.63'
    """
    whole, part = divmod(value, ONE)
    return f"{whole}.{part // 10 ** (SCALE - decimals):0{decimals}d}"


def order_uuids(orders: npt.NDArray[np.int64], product: str, kind: str) -> list[str]:
    """Return the UUIDs of orders, version 4 in form."""
    own = key(product, kind)
    halves = np.column_stack([hashed(base ^ own, orders) for base in _UUID_KEYS])
    octets = np.ascontiguousarray(halves).view(np.uint8)
    text = np.full((len(orders), 36), ord("-"), dtype=np.uint8)
    nibbles = np.empty((len(orders), 32), dtype=np.uint8)
    nibbles[:, 0::2] = octets >> 4
    nibbles[:, 1::2] = octets & 15
    nibbles[:, 12] = 4
    nibbles[:, 16] = 8 + (nibbles[:, 16] & 3)
    text[:, _UUID_PLACES] = _HEX[nibbles]
    joined = text.tobytes().decode("ascii")
    return [joined[i : i + 36] for i in range(0, len(joined), 36)]


def sequence_of(trade_id: int) -> int:
    """Return the number of a trade in the product's whole order flow; heartbeats come just after."""
    return trade_id * _SEQUENCES_A_TRADE


class ProductFrames:
    """One product's messages.

    Args:
        model: the product; its prices and sizes have as many decimals as its steps.
    """

    def __init__(self, model: ProductModel) -> None:
        self._product = model.product
        self._decimals = model.price_decimals
        self._price_texts: dict[int, str] = {}

    def matches(self, trades: Trades, kind: str = "match") -> list[bytes]:
        """Return a `match` (or `last_match`) message for each trade. Its side is the maker's."""
        makers = order_uuids(trades["trade_id"], self._product, "maker")
        takers = order_uuids(trades["order"], self._product, "taker")
        product = self._product
        price_text, times = self._price, _Times()
        return [
            f'{{"type":"{kind}","trade_id":{trade_id},"maker_order_id":"{maker}",'
            f'"taker_order_id":"{taker}","side":"{"sell" if side == 0 else "buy"}",'
            f'"size":"{size // ONE}.{size % ONE:08d}","price":"{price_text(price)}",'
            f'"product_id":"{product}","sequence":{trade_id * _SEQUENCES_A_TRADE},'
            f'"time":"{times(us)}"}}'.encode()
            for trade_id, us, price, size, side, maker, taker in zip(
                trades["trade_id"].tolist(),
                trades["event_us"].tolist(),
                trades["price"].tolist(),
                trades["size"].tolist(),
                trades["taker_side"].tolist(),
                makers,
                takers,
                strict=True,
            )
        ]

    def tickers(self, trades: Trades, tops: Tops, skew_us: int = 0) -> list[bytes]:
        """Return a `ticker` message for each trade. Its side is the taker's.

        Args:
            trades: the trades.
            tops: the best bid and ask after each.
            skew_us: what the clock that stamps the message is wrong by.
        """
        price_text, times = self._price, _Times()
        return [
            f'{{"type":"ticker","sequence":{trade["trade_id"] * _SEQUENCES_A_TRADE},'
            f'"product_id":"{self._product}","price":"{price_text(int(trade["price"]))}",'
            f'"best_bid":"{price_text(bid)}","best_bid_size":"{decimal_text(bid_size)}",'
            f'"best_ask":"{price_text(ask)}","best_ask_size":"{decimal_text(ask_size)}",'
            f'"side":"{_TAKER[trade["taker_side"]]}","time":"{times(int(trade["event_us"]) + skew_us)}",'
            f'"trade_id":{trade["trade_id"]},"last_size":"{decimal_text(int(trade["size"]))}"}}'.encode()
            for trade, bid, bid_size, ask, ask_size in zip(
                trades,
                tops.bid.tolist(),
                tops.bid_size.tolist(),
                tops.ask.tolist(),
                tops.ask_size.tolist(),
                strict=True,
            )
        ]

    def heartbeat(self, last_trade_id: int, stamp_us: int) -> bytes:
        """Return the `heartbeat` that names the product's last trade."""
        return encode(
            {
                "type": "heartbeat",
                "sequence": sequence_of(last_trade_id) + 1,
                "last_trade_id": last_trade_id,
                "product_id": self._product,
                "time": to_iso(stamp_us),
            }
        )

    def snapshot(self, book: BookState) -> bytes:
        """Return the `snapshot` that a subscription to `level2_batch` starts with."""
        return encode(
            {
                "type": "snapshot",
                "product_id": self._product,
                "bids": self._levels(book.bids),
                "asks": self._levels(book.asks),
            }
        )

    def l2update(self, changes: Iterable[Change], moment_us: int) -> bytes:
        """Return the `l2update` with the changes of a step."""
        rows = [
            (_SIDE_NAMES[change.side], self._price(change.price), decimal_text(change.size))
            for change in changes
        ]
        return encode(
            {"type": "l2update", "product_id": self._product, "changes": rows, "time": to_iso(moment_us)}
        )

    def rest_trades(self, trades: Trades) -> bytes:
        """Return REST's list of trades in the order given. Their side is the maker's."""
        times = _Times()
        return (
            "["
            + ",".join(
                f'{{"trade_id":{trade_id},"side":"{"sell" if side == 0 else "buy"}",'
                f'"size":"{decimal_text(size)}","price":"{self._price(price)}","time":"{times(us)}"}}'
                for trade_id, us, price, size, side in zip(
                    trades["trade_id"].tolist(),
                    trades["event_us"].tolist(),
                    trades["price"].tolist(),
                    trades["size"].tolist(),
                    trades["taker_side"].tolist(),
                    strict=True,
                )
            )
            + "]"
        ).encode()

    def rest_book(self, book: BookState, *, level: int, last_trade_id: int, stamp_us: int) -> bytes:
        """Return REST's book: the best levels (1) or all of them (2), as [price, size, orders]."""
        shown = slice(0, 1) if level == 1 else slice(None)
        return encode(
            {
                "bids": [(*row, 1) for row in self._levels(book.bids[shown])],
                "asks": [(*row, 1) for row in self._levels(book.asks[shown])],
                "sequence": sequence_of(last_trade_id) + 1,
                "auction_mode": False,
                "auction": None,
                "time": to_iso(stamp_us),
            }
        )

    def price(self, value: int) -> str:
        """Return a price with the product's decimals."""
        return self._price(value)

    def _levels(self, levels: Sequence[tuple[int, int]]) -> list[tuple[str, str]]:
        return [(self._price(price), decimal_text(size)) for price, size in levels]

    def _price(self, value: int) -> str:
        text = self._price_texts.get(value)
        if text is None:
            if len(self._price_texts) > 50_000:
                self._price_texts.clear()
            text = self._price_texts[value] = decimal_text(value, self._decimals)
        return text


class _Times:
    """Writes times; those of one minute share their beginning."""

    def __init__(self) -> None:
        self._minute = -1
        self._text = ""

    def __call__(self, us: int) -> str:
        minute, rest = divmod(us, MINUTE_US)
        if minute != self._minute:
            self._minute = minute
            self._text = to_iso(minute * MINUTE_US)[:17]
        return f"{self._text}{rest // SECOND_US:02d}.{rest % SECOND_US:06d}Z"


def error_frame(message: str, reason: str) -> bytes:
    """Return an `error` message."""
    return encode({"type": "error", "message": message, "reason": reason})


def subscriptions_frame(channels: Mapping[str, Sequence[str]]) -> bytes:
    """Return the `subscriptions` message: the products of each channel that has any."""
    listed = [
        {"name": name, "product_ids": list(products), "account_ids": None}
        for name, products in channels.items()
        if products
    ]
    return encode({"type": "subscriptions", "channels": listed})
