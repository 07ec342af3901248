"""Messages for a log, and a market's worth of trades to fill one with."""

import random
import struct
from collections.abc import Iterable, Sequence
from typing import Any

from lakehouse.market.quote import NO_IMBALANCE, QUOTE_RECORD_FORMAT, QUOTE_RECORD_VERSION
from lakehouse.market.trade import TRADE_RECORD_FORMAT, TRADE_RECORD_VERSION, Exchange, Side, Source
from streaming.spine.contract import Partition, Spine, partition_number

PRODUCTS = ("BTC-USD", "ETH-USD", "SOL-USD")
START = 1_763_596_740_000_000
"""2025-11-19T23:59:00Z: a market that starts here crosses midnight."""


def trade(product: str, trade_id: int, event_us: int, **fields: Any) -> dict[str, Any]:
    made = {"product": product, "trade_id": trade_id, "event_us": event_us, "price": 6_000_000_000_000}
    return made | {"size": 12_345_678, "buy": True, "late": False} | fields


def market(seed: int, count: int, *, minutes: float = 6, disorder: int = 3) -> list[dict[str, Any]]:
    """Trades in the order of arrival: slightly disordered, some late, some repeated, some ids missing."""
    chance = random.Random(seed)
    next_id = {product: chance.randint(1, 10**6) for product in PRODUCTS}
    arrivals: list[tuple[float, dict[str, Any]]] = []
    for position in range(count):
        product = chance.choices(PRODUCTS, (6, 3, 1))[0]
        next_id[product] += 1 if chance.random() > 0.01 else 3
        made = trade(
            product,
            next_id[product],
            START + int(position * minutes * 60_000_000 / count),
            price=chance.randint(1, 10**13),
            size=chance.randint(1, 10**11),
            buy=chance.random() < 0.5,
        )
        delay = chance.uniform(0, disorder) + (count * 0.1 if chance.random() < 0.01 else 0)
        arrivals.append((position + delay, made))
        if chance.random() < 0.02:
            arrivals.append((position + delay + chance.uniform(0, count * 0.05), made))
    trades = [made for _, made in sorted(arrivals, key=lambda arrival: arrival[0])]
    newest: dict[str, int] = {}
    marked = []
    for made in trades:
        late = newest.get(made["product"], 0) // 60_000_000 > made["event_us"] // 60_000_000
        newest[made["product"]] = max(newest.get(made["product"], 0), made["event_us"])
        marked.append(made | {"late": late})
    return marked


def trade_message(made: dict[str, Any]) -> bytes:
    return struct.pack(
        TRADE_RECORD_FORMAT,
        made["product"].encode(),
        *(made[name] for name in ("trade_id", "price", "size", "event_us")),
        made["event_us"] + 20_000,
        Side.BUY if made["buy"] else Side.SELL,
        Source.FEED,
        Exchange.COINBASE,
        made["late"],
        TRADE_RECORD_VERSION,
    )


def quote_message(product: str, bid: int, ask: int, event_us: int, imbalance: int | None = None) -> bytes:
    return struct.pack(
        QUOTE_RECORD_FORMAT,
        product.encode(),
        *(17, bid, 5, ask, 6, NO_IMBALANCE if imbalance is None else imbalance, event_us, event_us + 1),
        *(Source.TICKER if imbalance is None else Source.BOOK, Exchange.COINBASE, QUOTE_RECORD_VERSION, 0),
    )


def publish(spine: Spine, trades: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Publish trades as one batch and return them with the time they were recorded."""
    batch: dict[Partition, list[dict[str, Any]]] = {}
    for made in trades:
        partition = Partition("trades", partition_number(made["product"], spine.partitions))
        batch.setdefault(partition, []).append(made)
    first = spine.publish({partition: [trade_message(t) for t in of] for partition, of in batch.items()})
    recorded = []
    for partition, of in batch.items():
        times = spine.read(partition, first[partition], len(of)).published_us
        recorded += [made | {"recorded_us": us} for made, us in zip(of, times, strict=True)]
    return recorded


def publish_in_batches(spine: Spine, trades: Sequence[dict[str, Any]], size: int) -> list[dict[str, Any]]:
    return [made for i in range(0, len(trades), size) for made in publish(spine, trades[i : i + size])]


class Crash(BaseException):
    """Stands for kill -9: nothing catches it, no clean-up follows, what is on disk is what there is."""
