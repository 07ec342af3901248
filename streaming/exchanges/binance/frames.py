"""Binance spot's stream frames: https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams

As for Coinbase, a frame is decoded in one typed pass that takes only what is wholly usual, and else again
with care. Frames come wrapped by a combined stream (`{"stream": …, "data": …}`) or bare; the REST answer
with a book's snapshot is a frame too, because recordings hold it among the others.
"""

from typing import Final

import msgspec

from lakehouse.market.exact import InexactNumberError, scaled
from lakehouse.market.quarantine import Reason
from lakehouse.market.trade import Side, Trade
from streaming.exchanges.binance.symbols import Symbols
from streaming.exchanges.contract import (
    BookSnapshot,
    BookUpdate,
    Control,
    Event,
    ExchangeError,
    Level,
    Ticker,
)
from streaming.exchanges.fields import MAX_ID, Fields, JsonObject, json_object, refuse_if_crossed


class _Trade(msgspec.Struct, gc=False):
    e: str
    E: int
    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool
    M: bool


class _TradeFrame(msgspec.Struct):
    stream: str
    data: _Trade


class _Ticker(msgspec.Struct, gc=False):
    u: int
    s: str
    b: str
    B: str
    a: str
    A: str


class _TickerFrame(msgspec.Struct):
    stream: str
    data: _Ticker


class _Depth(msgspec.Struct):
    e: str
    E: int
    s: str
    U: int
    u: int
    b: list[tuple[str, str]]
    a: list[tuple[str, str]]


class _DepthFrame(msgspec.Struct):
    stream: str
    data: _Depth


_decode_trade = msgspec.json.Decoder(_TradeFrame).decode
_decode_ticker = msgspec.json.Decoder(_TickerFrame).decode
_decode_depth = msgspec.json.Decoder(_DepthFrame).decode

# One colon a key, all required, none in the values: exactly that many means no key comes twice.
_TRADE_COLONS: Final = 2 + 9
_TICKER_COLONS: Final = 2 + 6
_DEPTH_COLONS: Final = 2 + 7


class Decoder:
    """Reads frames; knows the configured products' symbols."""

    def __init__(self, symbols: Symbols) -> None:
        self._symbols = symbols

    def decode(self, frame: str | bytes) -> Event:
        """Return what a frame says.

        Raises:
            RefusedError: it goes to quarantine.
        """
        if type(frame) is str:
            try:
                event = self._usual(frame)
            except (msgspec.MsgspecError, UnicodeError, RecursionError, InexactNumberError):
                event = None  # unusual: what exactly is wrong, the careful decoding says
            if event is not None:
                return event
        return self._careful(frame)

    def _usual(self, frame: str) -> Event | None:
        head = frame[:48]
        if '@trade"' in head:
            trade = _decode_trade(frame).data
            product = self._symbols.product(trade.s)
            price, size = scaled(trade.p), scaled(trade.q)
            if (
                trade.e == "trade"
                and product is not None
                and price > 0
                and size > 0
                and 0 < trade.t <= MAX_ID
                and 0 <= trade.T <= MAX_ID // 1000
                and frame.count(":") == _TRADE_COLONS
            ):
                side = Side.SELL if trade.m else Side.BUY
                return Trade(product, trade.t, price, size, side, trade.T * 1000)
        elif '@bookTicker"' in head:
            ticker = _decode_ticker(frame).data
            product = self._symbols.product(ticker.s)
            bid, ask = scaled(ticker.b), scaled(ticker.a)
            bid_size, ask_size = scaled(ticker.B), scaled(ticker.A)
            if (
                product is not None
                and 0 < bid <= ask
                and min(bid_size, ask_size) >= 0
                and 0 < ticker.u <= MAX_ID
                and frame.count(":") == _TICKER_COLONS
            ):
                return Ticker(product, ticker.u, bid, bid_size, ask, ask_size, 0)
        elif "@depth" in head and '"lastUpdateId"' not in frame[:80]:
            depth = _decode_depth(frame).data
            product = self._symbols.product(depth.s)
            bids = [(scaled(price), scaled(size)) for price, size in depth.b]
            asks = [(scaled(price), scaled(size)) for price, size in depth.a]
            if (
                depth.e == "depthUpdate"
                and product is not None
                and 0 < depth.U <= depth.u <= MAX_ID
                and 0 <= depth.E <= MAX_ID // 1000
                and all(price > 0 and size >= 0 for price, size in bids)
                and all(price > 0 and size >= 0 for price, size in asks)
                and frame.count(":") == _DEPTH_COLONS
            ):
                return BookUpdate(product, depth.U, depth.u, bids, asks, depth.E * 1000)
        return None

    def _careful(self, frame: str | bytes) -> Event:
        message = json_object(frame)
        stream = message.get("stream")
        data = message
        if "data" in message:
            if not isinstance(stream, str) or not isinstance(message["data"], dict):
                Fields(message, "unknown").refuse(Reason.WRONG_SHAPE, "'stream' or 'data' is of another type")
            data = message["data"]
        kind = data.get("e")
        if kind == "trade":
            return self._trade(data)
        if kind == "depthUpdate":
            return self._update(data)
        if "lastUpdateId" in data:
            return self._snapshot(data, stream if isinstance(stream, str) else "")
        if (isinstance(stream, str) and stream.endswith("@bookTicker")) or {"u", "b", "B"} <= data.keys():
            return self._ticker(data)
        if "error" in message or {"code", "msg"} <= message.keys():
            return ExchangeError(str(message.get("error", message.get("msg")))[:500])
        if "result" in message:
            return Control("result")
        if isinstance(kind, str):
            return Control(kind[:40])
        Fields(message, "unknown").refuse(Reason.WRONG_SHAPE, "no message of Binance: nothing says its type")

    def product(self, fields: Fields, key: str) -> str:
        """Return the product of the symbol in a field."""
        return self._mapped(fields, fields.text(key))

    def _mapped(self, fields: Fields, symbol: str) -> str:
        product = self._symbols.product(symbol)
        if product is None:
            fields.refuse(Reason.UNKNOWN_PRODUCT, f"{symbol[:40]!r} is no product's symbol")
        fields.belongs_to(product)
        return product

    def _trade(self, data: JsonObject) -> Trade:
        fields = Fields(data, "trade")
        product = self.product(fields, "s")
        return Trade(
            product,
            fields.identifier("t"),
            fields.positive("p"),
            fields.positive("q"),
            Side.SELL if fields.flag("m") else Side.BUY,
            fields.milliseconds("T"),
        )

    def _ticker(self, data: JsonObject) -> Ticker:
        fields = Fields(data, "ticker")
        product = self.product(fields, "s")
        bid, ask = fields.positive("b"), fields.positive("a")
        if bid > ask:
            fields.refuse(Reason.CROSSED_BOOK, "the best bid is above the best ask")
        update_id = fields.identifier("u")
        return Ticker(product, update_id, bid, fields.not_negative("B"), ask, fields.not_negative("A"), 0)

    def _update(self, data: JsonObject) -> BookUpdate:
        fields = Fields(data, "book")
        product = self.product(fields, "s")
        first, last = fields.identifier("U"), fields.identifier("u")
        if first > last:
            fields.refuse(Reason.BAD_ID, f"the first update {first} is after the last {last}")
        return BookUpdate(
            product, first, last, fields.levels("b"), fields.levels("a"), fields.milliseconds("E")
        )

    def _snapshot(self, data: JsonObject, stream: str) -> BookSnapshot:
        """Read a REST answer; `stream` names the symbol where our own recorder wrote it down."""
        fields = Fields(data, "book")
        symbol = stream.partition("@")[0].upper()
        product = self._mapped(fields, symbol) if symbol else ""
        update_id = fields.identifier("lastUpdateId")
        bids: list[Level] = fields.levels("bids")
        asks: list[Level] = fields.levels("asks")
        refuse_if_crossed(fields, bids, asks)
        return BookSnapshot(product, update_id, bids, asks, 0)


def rest_trade(record: JsonObject, product: str) -> Trade:
    """Return the trade of a REST record.

    Raises:
        RefusedError: it is none.
    """
    fields = Fields(record, "trade")
    fields.belongs_to(product)
    return Trade(
        product,
        fields.identifier("id"),
        fields.positive("price"),
        fields.positive("qty"),
        Side.SELL if fields.flag("isBuyerMaker") else Side.BUY,
        fields.milliseconds("time"),
    )
