"""Damaged frames by the ten thousand: no crash, every one accounted for, no trade that wasn't said."""

import gzip
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hostile_exchange import hostile_exchange
from market_recording import PRODUCTS, record_market
from mutations import Frame, Mutator, SaidTrade, said_trade
from running_workers import wait_until, workers

from lakehouse.market.quarantine import Reason, Refused
from lakehouse.market.trade import TRADE_RECORD, Exchange, Side, Source
from lakehouse.stores import sql
from streaming.exchanges.binance import Binance
from streaming.exchanges.coinbase import Coinbase
from streaming.exchanges.contract import Exchange as ExchangeContract
from streaming.feed.handler import FeedHandler
from streaming.spine.topics import QUARANTINE, TRADES

A_FRESH_START = 500
"""Frames after which the feed starts anew, so that damaged ids don't only make ever more gaps."""


def mutate_and_handle(
    exchange: ExchangeContract,
    products: Sequence[str],
    frames: Sequence[Frame],
    received_us: int,
    seed: int,
    count: int,
) -> Counter[str]:
    """Hand damaged frames to the feed, one at a time, and look at what became of each."""
    mutator = Mutator(seed, frames)
    ends: Counter[str] = Counter()
    for first in range(0, count, A_FRESH_START):
        handler = FeedHandler(
            exchange, products=products, partitions=3, source=Source.FEED, states={}, lateness_minutes=10
        )
        quarantined_before = 0
        for i in range(min(A_FRESH_START, count - first)):
            frame = mutator.next()
            handler.handle([(frame, received_us + i)])
            totals = handler.totals()
            assert totals.received == i + 1
            assert totals.unaccounted == 0
            messages = handler.take()
            trades = [row for key, rows in messages.items() if key.topic == TRADES for row in rows]
            refused = [row for key, rows in messages.items() if key.topic == QUARANTINE for row in rows]
            check_trades(frame, trades, products)
            assert len(refused) == totals.quarantined - quarantined_before
            quarantined_before = totals.quarantined
            check_refusal(frame, refused)
            ends["accepted trades"] += len(trades)
            ends["quarantined"] += len(refused)
            handler.requests()
        totals = handler.totals()
        ends["received"] += totals.received
        ends["ended"] += totals.accepted + totals.duplicates + totals.quarantined
    return ends


def check_trades(frame: Frame, records: list[bytes], products: Sequence[str]) -> None:
    """A trade comes out only if the frame says it, and as it says it."""
    if not records:
        return
    (record,) = records
    row = np.frombuffer(record, TRADE_RECORD)[0]
    accepted = SaidTrade(
        row["product"].decode(),
        int(row["trade_id"]),
        Decimal(int(row["price"])).scaleb(-8),
        Decimal(int(row["size"])).scaleb(-8),
        Side(row["taker_side"]).name.lower(),
        int(row["event_us"]),
    )
    assert accepted.product in products
    assert accepted == said_trade(frame), frame[:400]


def check_refusal(frame: Frame, refusals: list[bytes]) -> None:
    """What was refused is kept as it came, with why."""
    if not refusals:
        return
    (refusal,) = refusals
    refused = msgspec.msgpack.decode(refusal, type=Refused)
    assert refused.frame == (frame.encode("utf-8", "surrogatepass") if isinstance(frame, str) else frame)
    assert refused.reason in Reason
    assert refused.detail


@pytest.fixture(scope="module")
def coinbase_frames(tmp_path_factory: pytest.TempPathFactory) -> list[str | bytes]:
    path = tmp_path_factory.mktemp("frames") / "market.jsonl"
    return record_market(path, seed=5, seconds=3, rate=300.0, faults="")


@pytest.fixture(scope="module")
def binance_frames(market_data: Path) -> list[str]:
    with gzip.open(market_data / "binance-spot-btcusdt" / "btcusdt_20240808.gz", "rt") as lines:
        read = (line.split(" ", 1)[1].strip() for line in lines)
        return [frame for _, frame in zip(range(4_000), read, strict=False) if frame]


@pytest.mark.timeout(1800)
def test_mutated_coinbase_frames(coinbase_frames: list[str | bytes], request: pytest.FixtureRequest) -> None:
    exchange = Coinbase(Exchange.COINBASE, "ws://127.0.0.1", "http://127.0.0.1")
    now = 1_795_000_000_000_000
    check_ends(exchange, PRODUCTS, coinbase_frames, now, request)


@pytest.mark.timeout(1800)
def test_mutated_binance_frames(binance_frames: list[str], request: pytest.FixtureRequest) -> None:
    exchange = Binance("ws://127.0.0.1", "http://127.0.0.1", ["BTC-USDT"])
    check_ends(exchange, ["BTC-USDT"], binance_frames, 1_723_200_000_000_000, request)


def check_ends(
    exchange: ExchangeContract,
    products: Sequence[str],
    frames: Sequence[Frame],
    received_us: int,
    request: pytest.FixtureRequest,
) -> None:
    count = 100_000 if request.config.getoption("--full") else 10_000
    seed = request.config.getoption("--seed")
    ends = mutate_and_handle(exchange, products, frames, received_us, seed, count)
    print(dict(ends))
    assert ends["received"] == ends["ended"] == count
    # The campaign is worth its name only if both happen often.
    assert ends["quarantined"] > count / 4
    assert ends["accepted trades"] > count / 200


@pytest.mark.timeout(600)
def test_mutated_frames_through_a_socket_into_the_tables(
    coinbase_frames: list[str | bytes], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The real feed reads them from a socket; what it refused lies in the table with its bytes."""
    mutator = Mutator(request.config.getoption("--seed") + 1, coinbase_frames)
    frames = [mutator.next() for _ in range(10_000 if request.config.getoption("--full") else 1_000)]
    with (
        hostile_exchange(frames) as exchange,
        workers(
            tmp_path,
            "market",
            feed="coinbase",
            products=",".join(PRODUCTS),
            commit_interval_ms=100,
            coinbase_websocket_url=exchange.websocket_url,
            coinbase_rest_url=exchange.rest_url,
        ) as platform,
    ):
        for name in ("feed", "hot", "archive", "candles"):
            platform.start(name)
        wait_until(
            lambda: (platform.metric("feed", "lakehouse_feed_received_total") or 0) >= len(frames),
            60,
            f"all frames\n{platform.log('feed')}",
        )
        platform.stop_when_all_is_committed()
        assert exchange.connections == 1
        with sql.connect(platform.home) as tables:
            quarantined = tables.execute("SELECT frame, reason, detail FROM quarantine").fetchall()
            trades = tables.execute("SELECT product, trade_id FROM trades").fetchall()
            counts = tables.execute(
                "SELECT CAST(sum(received) AS BIGINT), CAST(sum(accepted) AS BIGINT), "
                "CAST(sum(duplicates) AS BIGINT), CAST(sum(quarantined) AS BIGINT) FROM intake"
            ).fetchone()
    assert counts is not None
    received, accepted, duplicates, refused = counts
    # The REST interface of this exchange has no trades, so every input is one of the frames.
    assert received == len(frames) == accepted + duplicates + refused
    assert refused == len(quarantined)
    sent = Counter(
        frame.encode("utf-8", "surrogatepass") if isinstance(frame, str) else frame for frame in frames
    )
    assert Counter(frame for frame, _, _ in quarantined) <= sent
    assert {reason for _, reason, _ in quarantined} <= set(Reason)
    assert all(detail for _, _, detail in quarantined)
    said = {(trade.product, trade.trade_id) for trade in map(said_trade, frames) if trade}
    assert len(trades) == len(set(trades))
    assert set(trades) <= said
