"""Frames as Coinbase and Binance send them, and what the tests read back from a spine."""

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from lakehouse.market.book import BOOK_HEADER, BOOK_LEVEL, BookKind, BookSide
from lakehouse.market.gap import Gap
from lakehouse.market.intake import IntakeCount
from lakehouse.market.quarantine import Refused
from lakehouse.market.time import to_iso
from lakehouse.market.trade import TRADE_RECORD, Exchange, Source
from streaming.exchanges.coinbase import Coinbase
from streaming.feed.handler import FeedHandler, ProductState
from streaming.spine.contract import Partition, Spine
from streaming.spine.topics import BOOK, GAPS, INTAKE, QUARANTINE, QUOTES, TOPICS, TRADES

START_US = 1_795_000_000_000_000

coinbase = Coinbase(Exchange.COINBASE, "ws://127.0.0.1", "http://127.0.0.1")


def match(trade_id: int, event_us: int = START_US, product: str = "BTC-USD", **fields: object) -> str:
    message = {
        "type": "match",
        "trade_id": trade_id,
        "maker_order_id": "ac928c66-ca53-498f-9c13-a110027a60e8",
        "taker_order_id": "132fb6ae-456b-4654-b4e0-d681ac05cea1",
        "side": "sell",
        "size": "0.01000000",
        "price": f"{60_000 + trade_id % 100}.5",
        "product_id": product,
        "sequence": trade_id * 10,
        "time": to_iso(event_us),
    }
    return json.dumps(message | fields, separators=(",", ":"))


def heartbeat(last_trade_id: int, event_us: int = START_US, product: str = "BTC-USD") -> str:
    message = {"type": "heartbeat", "sequence": 1, "last_trade_id": last_trade_id, "product_id": product}
    return json.dumps(message | {"time": to_iso(event_us)}, separators=(",", ":"))


def ticker(sequence: int, bid: str, ask: str, product: str = "BTC-USD") -> str:
    message = {
        "type": "ticker", "sequence": sequence, "product_id": product, "price": bid, "best_bid": bid,
        "best_bid_size": "1", "best_ask": ask, "best_ask_size": "2", "side": "buy", "time": to_iso(START_US),
        "trade_id": 5, "last_size": "1",
    }  # fmt: skip
    return json.dumps(message)


def snapshot(bids: dict[str, str], asks: dict[str, str], product: str = "BTC-USD") -> str:
    message = {"type": "snapshot", "product_id": product, "bids": [*bids.items()], "asks": [*asks.items()]}
    return json.dumps(message)


def l2update(*changes: tuple[str, str, str], product: str = "BTC-USD", event_us: int = START_US) -> str:
    message = {"type": "l2update", "product_id": product, "changes": changes, "time": to_iso(event_us)}
    return json.dumps(message)


def new_handler(
    *,
    products: Iterable[str] | None = None,
    source: Source = Source.FEED,
    states: dict[str, ProductState] | None = None,
) -> FeedHandler:
    chosen = None if products is None else list(products)
    return FeedHandler(
        coinbase, products=chosen, partitions=3, source=source, states=states or {}, lateness_minutes=10
    )


class Published:
    """Messages by topic, decoded."""

    def __init__(self, messages: dict[Partition, list[bytes]]) -> None:
        self.messages = messages

    def payloads(self, topic: str) -> list[bytes]:
        return [
            payload for key in sorted(self.messages) if key.topic == topic for payload in self.messages[key]
        ]

    @property
    def trades(self) -> npt.NDArray[np.void]:
        return np.frombuffer(b"".join(self.payloads(TRADES)), TRADE_RECORD)

    @property
    def quotes(self) -> list[bytes]:
        return self.payloads(QUOTES)

    @property
    def gaps(self) -> list[Gap]:
        return [msgspec.msgpack.decode(payload, type=Gap) for payload in self.payloads(GAPS)]

    @property
    def refused(self) -> list[Refused]:
        return [msgspec.msgpack.decode(payload, type=Refused) for payload in self.payloads(QUARANTINE)]

    @property
    def counts(self) -> list[IntakeCount]:
        return [msgspec.msgpack.decode(payload, type=IntakeCount) for payload in self.payloads(INTAKE)]

    @property
    def books(self) -> list[tuple[dict[str, Any], list[tuple[BookSide, int, int]]]]:
        books = []
        for payload in self.payloads(BOOK):
            header = np.frombuffer(payload, BOOK_HEADER, 1)[0]
            levels = np.frombuffer(payload, BOOK_LEVEL, offset=BOOK_HEADER.itemsize)
            assert len(levels) == header["levels"]
            fields = {name: header[name].item() for name in BOOK_HEADER.names or ()}
            rows = [(BookSide(row["side"]), int(row["price"]), int(row["size"])) for row in levels]
            books.append((fields | {"kind": BookKind(fields["kind"])}, rows))
        return books


def take(handler: FeedHandler) -> Published:
    handler.count()
    return Published(handler.take())


def read_all(spine: Spine) -> Published:
    """Everything in a spine but the checkpoints."""
    messages: dict[Partition, list[bytes]] = {}
    for topic in TOPICS[:-1]:
        for number in range(spine.partitions):
            partition = Partition(topic, number)
            while payloads := spine.read(partition, len(messages.get(partition, ())), 100_000).payloads:
                messages.setdefault(partition, []).extend(payloads)
    return Published(messages)
