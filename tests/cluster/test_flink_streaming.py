"""The streaming job: every row once in the archive, candles as if computed from scratch, whatever comes."""

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from bridge_world import publish_market
from flink_world import FlinkWorld, flink_world
from log_messages import START, market, trade
from running_cluster import RunningCluster

from lakehouse.market.trade import Lateness
from lakehouse.stores import schemas
from lakehouse.stores.sql import connect, run_query
from streaming.engines.embedded.decode import ROWS
from streaming.engines.fluss.bridge import rows_of
from streaming.spine.contract import Partition
from streaming.spine.topics import BOOK, QUOTES

MINUTE = 60_000_000

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def world(cluster: RunningCluster, tmp_path: Path) -> Iterator[FlinkWorld]:
    with flink_world(cluster, tmp_path) as made:
        yield made


def test_tables_hold_what_was_pushed_however_often_and_in_whatever_order(world: FlinkWorld) -> None:
    world.job().ensure()
    trades = market(1, 3_000)
    world.push(trades[:1_500])
    world.check()
    chance = random.Random(2)
    again = trades[:1_500]
    chance.shuffle(again)
    rest = trades[1_500:] + again[:800]
    chance.shuffle(rest)
    world.push(rest)
    world.check()
    before = world.candle_rows()
    world.push(again)
    more = trade("BTC-USD", 9_000_000, START + 20 * MINUTE)
    world.push([more])
    world.check()
    assert set(before["start"].to_pylist()) < set(world.candle_rows()["start"].to_pylist())
    with closing(connect(world.home)) as connection:
        candles = run_query(connection, "SELECT count(*), sum(trade_count) FROM candles_1m")
        assert list(candles.rows) == [(world.candle_rows().num_rows, len(world.seen))]
        trades_there = run_query(connection, "SELECT count(*) FROM trades")
        assert list(trades_there.rows) == [(len(world.seen),)]


def test_quotes_and_books_are_archived_once_with_every_level(world: FlinkWorld) -> None:
    world.job().ensure()
    publish_market(world.spine, 3, 400)
    for topic in (QUOTES, BOOK):
        for number in range(world.spine.partitions):
            partition = Partition(topic, number)
            batch = world.spine.read(partition, 0, 10**6)
            if batch.payloads:
                rows = rows_of(batch, partition)
                middle = rows.num_rows // 2  # of a message, too
                world.write(topic, rows.slice(middle))
                world.write(topic, rows)
                world.write(topic, rows.slice(middle // 2))
    for topic in (QUOTES, BOOK):
        wanted = sum(
            ROWS[topic][1](batch, partition).num_rows
            for partition in (Partition(topic, number) for number in range(world.spine.partitions))
            if (batch := world.spine.read(partition, 0, 10**6)).payloads
        )
        assert wanted > 0
        world.wait(lambda topic=topic, wanted=wanted: world.iceberg_rows(topic).num_rows >= wanted, topic)
        world.check_archive(topic)
    for stats in world.iceberg.partitions(schemas.BOOK):
        pieces = world.iceberg.in_log_order(schemas.BOOK, str(stats.product), stats.day, ["spine_offset"])
        offsets = [offset for piece in pieces for offset in piece["spine_offset"].to_pylist()]
        assert len(offsets) == stats.rows
        assert offsets == sorted(offsets)


def test_late_trades_correct_their_candle_and_too_late_ones_leave_it(world: FlinkWorld) -> None:
    world.job().ensure()
    world.push([trade("BTC-USD", number, START + number * 10_000_000) for number in range(1, 60)])
    world.check()
    world.push(
        [
            trade("ETH-USD", 7, START + MINUTE - 1, size=10**17, price=10**9),
            trade("ETH-USD", 8, START + MINUTE),
            trade("ETH-USD", 6, START, late=Lateness.LATE, price=5),
            trade("ETH-USD", 9, START + 20 * MINUTE),
        ]
    )
    world.check()
    world.push(
        [
            trade("ETH-USD", 5, START + 1, late=Lateness.TOO_LATE, price=1),
            trade("ETH-USD", 10, START + 20 * MINUTE + 59_999_999),
        ]
    )
    world.check()
    candle = world.candles()["ETH-USD", START]
    assert (candle["first_trade_id"], candle["trade_count"], candle["revision"]) == (6, 2, 1)


@pytest.mark.full
def test_a_candle_is_complete_only_between_candles_that_join_it(world: FlinkWorld) -> None:
    world.job().ensure()
    world.push([trade("SOL-USD", number, START + number * MINUTE) for number in (1, 2, 3, 5, 6)])
    world.check()
    complete = {start: candle["is_complete"] for (_, start), candle in world.candles().items()}
    assert [complete[START + n * MINUTE] for n in (1, 2, 3, 5, 6)] == [True, True, False, False, False]
    world.push([trade("SOL-USD", 4, START + 4 * MINUTE, late=Lateness.LATE)])
    world.check()
    complete = {start: candle["is_complete"] for (_, start), candle in world.candles().items()}
    assert [complete[START + n * MINUTE] for n in (1, 2, 3, 4, 5, 6)] == [*[True] * 5, False]


def test_sums_are_exact_at_the_ends_of_what_a_trade_can_hold(world: FlinkWorld) -> None:
    world.job().ensure()
    most, last = 10**18 - 1, 2**63 - 2
    world.push(
        [
            *[trade("BTC-USD", 10**18 + n, START + n, price=most, size=10**9 + n) for n in range(50)],
            *[trade("BTC-USD", last - n, START + n, price=1, size=most, buy=False) for n in range(50)],
            trade("ETH-USD", 99, START + MINUTE - 1),
            trade("ETH-USD", 1_000, START + MINUTE - 2),
            trade("ETH-USD", 100, START + MINUTE),
        ]
    )
    world.check()
