"""The feed on real sockets: reconnects, gaps, resyncs, stalls, junk, and restarts."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from feed_frames import Published, heartbeat, match, read_all, snapshot
from feed_frames import l2update as update
from little_exchange import LittleExchange, feed_until, stay
from websockets.asyncio.server import ServerConnection

from lakehouse.home import Home
from lakehouse.market.gap import GapStatus
from lakehouse.market.quarantine import Reason
from lakehouse.market.time import now_us
from lakehouse.market.trade import Source
from streaming.exchanges.recording import Recording
from streaming.feed import live
from streaming.feed.handler import FeedError
from streaming.spine.contract import Partition, SpineUnavailableError
from streaming.spine.sqlite import SqliteSpine
from streaming.workers.feed import run_feed

NOW = now_us()


def trade_ids(spine: SqliteSpine) -> list[int]:
    return sorted(read_all(spine).trades["trade_id"].tolist())


def has(count: int) -> Callable[[SqliteSpine], bool]:
    return lambda spine: len(trade_ids(spine)) >= count


def contents(home: Path) -> Published:
    with SqliteSpine.open(Home(home, "market").spine) as spine:
        return read_all(spine)


def say(*frames: str | bytes) -> Callable[[ServerConnection], asyncio.Future[None]]:
    async def script(connection: ServerConnection) -> None:
        for frame in frames:
            await connection.send(frame)
        await stay(connection)

    return script  # type: ignore[return-value]


def test_a_log_that_is_away_at_a_checkpoint_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = SqliteSpine.commit
    refused = []

    def away_at_first(spine: SqliteSpine, group: str, offsets: Mapping[Partition, int]) -> None:
        if len(refused) < 2:
            refused.append(offsets)
            raise SpineUnavailableError("away")
        commit(spine, group, offsets)

    monkeypatch.setattr(SqliteSpine, "commit", away_at_first)
    monkeypatch.setattr(live, "CHECKPOINT_EVERY", 0.05)

    def told(spine: SqliteSpine) -> bool:
        return any(spine.committed("feed", Partition("trades", number)) for number in range(3))

    async def scenario() -> None:
        async with LittleExchange(say(match(1, NOW), match(2, NOW))) as exchange:
            await feed_until(exchange.settings(tmp_path), told)

    asyncio.run(scenario())
    assert len(refused) == 2
    assert contents(tmp_path).trades["trade_id"].tolist() == [1, 2]


def test_what_a_lost_connection_missed_is_fetched(tmp_path: Path) -> None:
    async def first(connection: ServerConnection) -> None:
        for i in range(1, 6):
            await connection.send(match(i, NOW))
        await connection.close()

    second = say(match(5, NOW, type="last_match"), match(8, NOW))

    async def scenario() -> None:
        async with LittleExchange(first, second, trades=dict.fromkeys((6, 7), NOW), refusals=2) as exchange:
            totals = await feed_until(exchange.settings(tmp_path), has(8))
            assert totals.duplicates == 1
            assert totals.gaps == 1
            assert exchange.connections == 2
            assert [heard["type"] for heard in exchange.heard] == ["subscribe"] * 2
            assert exchange.heard[0]["product_ids"] == ["BTC-USD", "ETH-USD"]

    asyncio.run(scenario())
    published = contents(tmp_path)
    records = {row["trade_id"]: row["source"] for row in published.trades}
    assert records == dict.fromkeys((1, 2, 3, 4, 5, 8), Source.FEED) | dict.fromkeys((6, 7), Source.REST)
    statuses = [(gap.first_trade_id, gap.last_trade_id, gap.status) for gap in published.gaps]
    assert statuses == [(6, 7, GapStatus.FOUND), (6, 7, GapStatus.FILLED)]
    assert sum(count.accepted for count in published.counts) == 8


def test_junk_is_quarantined_and_the_connection_stays(tmp_path: Path) -> None:
    junk = b"\xff" * 10_000_000

    async def script(connection: ServerConnection) -> None:
        await connection.send(junk, text=True)  # claims to be text, and is not
        await connection.send(b"\x00binary")
        await connection.send(match(2, NOW, price="NaN"))
        await connection.send([match(3, NOW)[:50], match(3, NOW)[50:]])  # one message in two parts
        await stay(connection)

    async def scenario() -> None:
        async with LittleExchange(script) as exchange:
            totals = await feed_until(exchange.settings(tmp_path), has(1))
            assert (totals.received, totals.accepted, totals.quarantined) == (4, 1, 3)
            assert exchange.connections == 1

    asyncio.run(scenario())
    refused = contents(tmp_path).refused
    assert sorted((row.reason, len(row.frame)) for row in refused) == sorted(
        [
            (Reason.NOT_TEXT, len(junk)),
            (Reason.NOT_TEXT, 7),
            (Reason.BAD_NUMBER, len(match(2, NOW, price="NaN"))),
        ]
    )


def test_a_silent_connection_is_made_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with LittleExchange(say(match(1, NOW)), say(match(2, NOW))) as exchange:
            await feed_until(exchange.settings(tmp_path, watchdog_seconds=0.3), has(2))
            assert exchange.connections >= 2

    asyncio.run(scenario())


def test_only_the_book_that_broke_is_asked_for_again(tmp_path: Path) -> None:
    async def script(connection: ServerConnection) -> None:
        for product in ("BTC-USD", "ETH-USD"):
            await connection.send(snapshot({"100": "1"}, {"101": "1"}, product))
        await connection.send(update(("buy", "105", "1"), product="ETH-USD"))
        await stay(connection)

    async def scenario() -> None:
        async with LittleExchange(script) as exchange:
            await feed_until(exchange.settings(tmp_path), lambda _: len(exchange.heard) == 3)
            assert exchange.heard[1:] == [
                {"type": what, "product_ids": ["ETH-USD"], "channels": ["level2_batch"]}
                for what in ("unsubscribe", "subscribe")
            ]

    asyncio.run(scenario())


def test_a_heartbeat_ahead_is_fetched(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with LittleExchange(say(match(1, NOW), heartbeat(3, NOW)), trades={2: NOW, 3: NOW}) as exchange:
            await feed_until(exchange.settings(tmp_path), has(3))

    asyncio.run(scenario())
    assert {gap.status for gap in contents(tmp_path).gaps} == {GapStatus.FOUND, GapStatus.FILLED}


def test_without_an_exchange_it_keeps_trying_and_stops_when_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with LittleExchange(say()) as exchange:
            settings = exchange.settings(tmp_path, coinbase_websocket_url="ws://127.0.0.1:1")
        until = time.monotonic() + 0.5
        totals = await feed_until(settings, lambda _: time.monotonic() > until)
        assert totals.received == 0

    asyncio.run(scenario())


def test_a_killed_feed_goes_on_with_nothing_lost_doubled_or_uncounted(tmp_path: Path) -> None:
    def some(first: int, last: int) -> list[str]:
        return [match(i // 2 + 1, NOW, "ETH-USD" if i % 2 else "BTC-USD") for i in range(first, last)]

    async def scenario() -> None:
        first, again = say(*some(0, 200), "junk"), say(*some(100, 400))
        async with LittleExchange(first, again) as exchange:
            settings = exchange.settings(tmp_path, metrics_port=0)
            environment = {k: v for k, v in os.environ.items() if not k.startswith("LAKEHOUSE_")} | {
                f"LAKEHOUSE_{name.upper()}": str(getattr(settings, name))
                for name in ("feed", "home", "coinbase_websocket_url", "coinbase_rest_url", "metrics_port")
            }
            environment["LAKEHOUSE_PRODUCTS"] = ",".join(settings.products)
            worker = subprocess.Popen([sys.executable, "-m", "streaming.workers.feed"], env=environment)
            home = Home(tmp_path, "market").create()
            with SqliteSpine.open(home.spine) as spine:
                while len(read_all(spine).trades) < 200 or not read_all(spine).refused:
                    assert worker.poll() is None
                    await asyncio.sleep(0.01)
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            totals = await feed_until(settings, has(400))
            assert totals.duplicates == 100
            assert totals.gaps == 0

    asyncio.run(scenario())
    published = contents(tmp_path)
    keys = [(row["product"], row["trade_id"]) for row in published.trades]
    assert len(keys) == len(set(keys)) == 400
    counts = [count for count in published.counts if count.kind == "trade"]
    assert sum(count.accepted for count in counts) == 400
    assert sum(count.quarantined for count in published.counts) == 1
    assert all(
        count.received == count.accepted + count.duplicates + count.quarantined for count in published.counts
    )


def test_a_product_of_another_exchange_is_refused_in_one_sentence(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with LittleExchange(say(match(1, NOW))) as exchange:
            settings = exchange.settings(tmp_path)
            await feed_until(settings, has(1))
            other = settings.model_copy(update={"feed": "binance"})
            home = Home(tmp_path, "market")
            with (
                SqliteSpine.open(home.spine) as spine,
                pytest.raises(FeedError, match="holds trades of coinbase"),
            ):
                await run_feed(other, home, spine, asyncio.Event())
            simulated = settings.model_copy(update={"feed": "simulated"})
            with SqliteSpine.open(home.spine) as spine, pytest.raises(FeedError, match="never mix"):
                await run_feed(simulated, home, spine, asyncio.Event())

    asyncio.run(scenario())


def test_what_is_recorded_can_be_fed(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl.zst"

    async def scenario() -> None:
        script = say(*[match(i, NOW) for i in range(1, 1001)], b"\xffbinary")
        async with LittleExchange(script) as exchange:
            settings = exchange.settings(tmp_path)
            recorder = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "streaming.workers.record", "--feed", "coinbase", "--out", str(out),
                env=os.environ | {
                    "LAKEHOUSE_COINBASE_WEBSOCKET_URL": settings.coinbase_websocket_url,
                    "LAKEHOUSE_PRODUCTS": "BTC-USD",
                },
            )  # fmt: skip
            while not out.exists() or out.stat().st_size == 0:
                await asyncio.sleep(0.05)
            assert len(list(Recording(out).frames())) == 1001  # what is flushed can be read already
            recorder.send_signal(signal.SIGINT)
            assert await recorder.wait() == 0
            totals = await feed_until(
                settings.model_copy(update={"feed": f"recording:{out}", "products": ()}), has(1000)
            )
            assert (totals.received, totals.accepted, totals.quarantined) == (1001, 1000, 1)

    asyncio.run(scenario())
