"""Coinbase Exchange's WebSocket frames: https://docs.cdp.coinbase.com/exchange/websocket-feed/channels

Each frame is decoded in one typed pass (`_usual`), which takes it only if nothing about it is unusual:
all documented keys there, each once, every number plain. Anything else is decoded again with care
(`_careful`), which finds the reason to refuse it, or that it is fine after all.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import msgspec

from lakehouse.market.exact import InexactNumberError, scaled
from lakehouse.market.product import is_product
from lakehouse.market.quarantine import Reason
from lakehouse.market.time import InvalidTimeError, parse_iso
from lakehouse.market.trade import Side, Trade
from streaming.exchanges.contract import (
    BookSnapshot,
    BookUpdate,
    Control,
    Event,
    ExchangeError,
    Heartbeat,
    Level,
    Ticker,
)
from streaming.exchanges.fields import MAX_ID, Fields, JsonObject, json_object, refuse_if_crossed


class _Match(msgspec.Struct, tag_field="type", tag="match", gc=False):
    trade_id: int
    maker_order_id: str
    taker_order_id: str
    side: str
    size: str
    price: str
    product_id: str
    sequence: int
    time: str


class _LastMatch(_Match, tag="last_match", gc=False):
    pass


class _Ticker(msgspec.Struct, tag_field="type", tag="ticker", gc=False):
    sequence: int
    product_id: str
    price: str
    open_24h: str
    volume_24h: str
    low_24h: str
    high_24h: str
    volume_30d: str
    best_bid: str
    best_bid_size: str
    best_ask: str
    best_ask_size: str
    side: str
    time: str
    trade_id: int
    last_size: str


class _Update(msgspec.Struct, tag_field="type", tag="l2update"):
    product_id: str
    changes: list[tuple[str, str, str]]
    time: str


class _Heartbeat(msgspec.Struct, tag_field="type", tag="heartbeat", gc=False):
    sequence: int
    last_trade_id: int
    product_id: str
    time: str


class _Record(msgspec.Struct, gc=False):
    """A trade as the REST interface gives it."""

    time: str
    trade_id: int
    price: str
    size: str
    side: str


_decode_records = msgspec.json.Decoder(list[_Record]).decode
_decode_usual = msgspec.json.Decoder(_Match | _LastMatch | _Ticker | _Update | _Heartbeat).decode

# A frame of n keys holds n colons and the two of its time. All n are required above, so a frame with
# exactly that many has no key twice and none besides (a string with a colon only makes it look unusual).
_MATCH_COLONS: Final = 10 + 2
_TICKER_COLONS: Final = 17 + 2
_UPDATE_COLONS: Final = 4 + 2
_HEARTBEAT_COLONS: Final = 5 + 2
_RECORD_COLONS: Final = 5 + 2

_TAKER_SIDE: Final = {"sell": Side.BUY, "buy": Side.SELL}
"""`side` of a match is the maker's."""

_scaled_price = lru_cache(maxsize=16_384)(scaled)  # the same prices come again and again
_has_product_form = lru_cache(maxsize=1024)(is_product)


def decode(frame: str | bytes) -> Event:
    """Return what a frame says.

    Raises:
        RefusedError: it goes to quarantine.
    """
    if type(frame) is str:
        try:
            event = _usual(frame)
        except (msgspec.MsgspecError, UnicodeError, RecursionError, InexactNumberError, InvalidTimeError):
            event = None  # unusual: what exactly is wrong, the careful decoding says
        if event is not None:
            return event
    return _careful(frame)


def _usual(frame: str) -> Event | None:
    message = _decode_usual(frame)
    kind = type(message)
    if kind is _Match or kind is _LastMatch:
        price = _scaled_price(message.price)
        size = scaled(message.size)
        side = _TAKER_SIDE.get(message.side)
        trade_id = message.trade_id
        if (
            price > 0
            and size > 0
            and side is not None
            and 0 < trade_id <= MAX_ID
            and frame.count(":") == _MATCH_COLONS
            and _has_product_form(message.product_id)
        ):
            return Trade(message.product_id, trade_id, price, size, side, parse_iso(message.time))
    elif kind is _Ticker:
        bid, ask = _scaled_price(message.best_bid), _scaled_price(message.best_ask)
        bid_size, ask_size = scaled(message.best_bid_size), scaled(message.best_ask_size)
        if (
            min(bid, ask) > 0
            and min(bid_size, ask_size) >= 0
            and bid <= ask
            and 0 < message.sequence <= MAX_ID
            and frame.count(":") == _TICKER_COLONS
            and _has_product_form(message.product_id)
        ):
            event_us = parse_iso(message.time)
            return Ticker(message.product_id, message.sequence, bid, bid_size, ask, ask_size, event_us)
    elif kind is _Update:
        bids: list[Level] = []
        asks: list[Level] = []
        for side_name, price_text, size_text in message.changes:
            price, size = _scaled_price(price_text), scaled(size_text)
            if price <= 0 or size < 0 or side_name not in _TAKER_SIDE:
                return None
            (bids if side_name == "buy" else asks).append((price, size))
        if frame.count(":") == _UPDATE_COLONS and _has_product_form(message.product_id):
            return BookUpdate(message.product_id, 0, 0, bids, asks, parse_iso(message.time))
    elif (
        0 < message.last_trade_id <= MAX_ID
        and frame.count(":") == _HEARTBEAT_COLONS
        and _has_product_form(message.product_id)
    ):
        return Heartbeat(message.product_id, message.last_trade_id, parse_iso(message.time))
    return None


def usual_records(product: str, content: bytes) -> list[Trade] | None:
    """Return the trades of a REST answer, None unless all of them are as they usually are."""
    try:
        records = _decode_records(content)
        trades = [
            Trade(
                product,
                record.trade_id,
                _scaled_price(record.price),
                scaled(record.size),
                _TAKER_SIDE[record.side],
                parse_iso(record.time),
            )
            for record in records
        ]
    except (msgspec.MsgspecError, UnicodeError, RecursionError, KeyError, ValueError):
        return None  # the caller reads them one by one, and says what is wrong with which
    if content.count(b":") != _RECORD_COLONS * len(records):
        return None
    plain = all(trade.price > 0 and trade.size > 0 and 0 < trade.trade_id <= MAX_ID for trade in trades)
    return trades if plain else None


def _careful(frame: str | bytes) -> Event:
    message = json_object(frame)
    kind = message.get("type")
    if not isinstance(kind, str):
        Fields(message, "unknown").refuse(Reason.WRONG_SHAPE, "'type' is missing or no string")
    if kind == "error":
        texts = [str(message[key])[:500] for key in ("message", "reason") if key in message]
        return ExchangeError(": ".join(texts))
    reader = _READERS.get(kind)
    return Control(kind[:40]) if reader is None else reader(message)


def trade(message: JsonObject, *, product: str | None = None) -> Trade:
    """Return the trade of a `match`, or of a REST record, which leaves out the `product`.

    Raises:
        RefusedError: it is none.
    """
    fields = Fields(message, "trade")
    if product is None:
        product = fields.product("product_id")
    else:
        fields.belongs_to(product)
    side = _TAKER_SIDE.get(fields.text("side"))
    if side is None:
        fields.refuse(Reason.WRONG_SHAPE, "'side' is neither buy nor sell")
    return Trade(
        product,
        fields.identifier("trade_id"),
        fields.positive("price"),
        fields.positive("size"),
        side,
        fields.iso_time("time"),
    )


def _ticker(message: JsonObject) -> Event:
    fields = Fields(message, "ticker")
    product = fields.product("product_id")
    if "best_bid_size" not in fields or "best_ask_size" not in fields:
        return Control("ticker")  # before 2022, and in ticker_batch: no sizes, so no quote
    bid, ask = fields.positive("best_bid"), fields.positive("best_ask")
    if bid > ask:
        fields.refuse(Reason.CROSSED_BOOK, "the best bid is above the best ask")
    return Ticker(
        product,
        fields.identifier("sequence"),
        bid,
        fields.not_negative("best_bid_size"),
        ask,
        fields.not_negative("best_ask_size"),
        fields.iso_time("time") if "time" in fields else 0,
    )


def _snapshot(message: JsonObject) -> BookSnapshot:
    fields = Fields(message, "book")
    product = fields.product("product_id")
    bids, asks = fields.levels("bids"), fields.levels("asks")
    refuse_if_crossed(fields, bids, asks)
    return BookSnapshot(product, 0, bids, asks, fields.iso_time("time") if "time" in fields else 0)


def _update(message: JsonObject) -> BookUpdate:
    fields = Fields(message, "book")
    product = fields.product("product_id")
    bids: list[Level] = []
    asks: list[Level] = []
    for row in fields.rows("changes"):
        if not isinstance(row, list) or len(row) != 3 or row[0] not in ("buy", "sell"):
            fields.refuse(Reason.WRONG_SHAPE, "a change is not [side, price, size]")
        (bids if row[0] == "buy" else asks).append(fields.level("changes", row[1:]))
    return BookUpdate(product, 0, 0, bids, asks, fields.iso_time("time") if "time" in fields else 0)


def _heartbeat(message: JsonObject) -> Event:
    fields = Fields(message, "heartbeat")
    product = fields.product("product_id")
    if message.get("last_trade_id") == 0:
        return Control("heartbeat")  # a product that has not traded yet
    return Heartbeat(product, fields.identifier("last_trade_id"), fields.iso_time("time"))


_READERS: Final[dict[str, Callable[[JsonObject], Event]]] = {
    "match": trade,
    "last_match": trade,
    "ticker": _ticker,
    "snapshot": _snapshot,
    "l2update": _update,
    "heartbeat": _heartbeat,
}
