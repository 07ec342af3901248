"""Python seals, merges files and expires snapshots in the tables that Flink writes at the same time."""

import asyncio
import random
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from flink_world import FlinkWorld, flink_world
from log_messages import PRODUCTS, START, market, trade
from running_cluster import RunningCluster

from lakehouse.stores.schemas import CANDLES_1M, TRADES
from lakehouse.stores.seals import seals
from streaming.engines.archived_offsets import ArchivedOffsets
from streaming.engines.rebuilding import rebuilder
from streaming.sealing.day import seal_day
from streaming.spine.contract import Partition

pytestmark = pytest.mark.timeout(900)

DAYS = (date(2025, 11, 19), date(2025, 11, 20))
CHECKPOINT = "flink.max-committed-checkpoint-id"


@pytest.fixture
def world(cluster: RunningCluster, tmp_path: Path) -> Iterator[FlinkWorld]:
    with flink_world(cluster, tmp_path) as made:
        yield made


def keep_small(world: FlinkWorld) -> None:
    """As the archive worker does, with less patience."""
    world.iceberg.compact(TRADES, fan_in=3)
    world.iceberg.expire(TRADES, keep=1, grace=timedelta(seconds=30), ladder=())


def seal_some_day(world: FlinkWorld, chance: random.Random) -> None:
    asyncio.run(seal_day(world.iceberg, None, chance.choice(PRODUCTS), chance.choice(DAYS)))


def lacking(world: FlinkWorld) -> int:
    archived = ArchivedOffsets(world.iceberg, world.spine)
    archived.refresh()
    partitions = [Partition("trades", number) for number in range(world.spine.partitions)]
    return sum(world.spine.end(partition) - archived.frontier(partition) for partition in partitions)


@pytest.mark.full
def test_rows_are_archived_once_whatever_python_commits_and_whatever_is_killed(
    world: FlinkWorld, cluster: RunningCluster, request: pytest.FixtureRequest
) -> None:
    chance = random.Random(int(request.config.getoption("--seed")))
    job = world.job().ensure()
    trades = market(chance.randrange(10**6), 6_000)
    for at in range(0, len(trades), 300):
        world.push(trades[at : at + 300])
        keep_small(world)
        if at % 900 == 0:
            seal_some_day(world, chance)
    world.wait(lambda: lacking(world) == 0, "trades are missing")
    # What Flink committed last is said by a snapshot of ours alone: without it Flink would commit that again.
    world.iceberg.replace(
        TRADES, "SOL-USD", DAYS[1], world.iceberg.scan(TRADES, product="SOL-USD", day=DAYS[1])
    )
    keep_small(world)
    (snapshot,) = world.iceberg.current(TRADES).metadata.snapshots
    assert snapshot.summary is not None
    assert int(snapshot.summary[CHECKPOINT]) > 0
    before = world.checkpoints(job)
    cluster.kill("flink-taskmanager")
    cluster.start("flink-taskmanager")
    world.push([trade("BTC-USD", 9_000_000 + n, START + n) for n in range(50)])
    world.wait(lambda: lacking(world) == 0, "trades are missing after the kill")
    world.wait(lambda: world.checkpoints(job) > before + 2, "no checkpoint after the kill")
    world.check()
    assert [live.id for live in world.live()] == [job.id]


@pytest.mark.full
def test_a_day_is_sealed_and_its_candles_are_rebuilt_by_flink(world: FlinkWorld) -> None:
    world.job().ensure()
    trades = market(7, 1_500)
    world.push(trades)
    world.check()
    rebuild_days = rebuilder(world.settings, world.home, world.iceberg, world.paimon)
    for product in PRODUCTS:
        for day in DAYS:
            asyncio.run(seal_day(world.iceberg, None, product, day))
    assert set(seals(world.iceberg)) == {(product, day) for product in PRODUCTS for day in DAYS}
    assert all(stats.files == 1 for stats in world.iceberg.partitions(TRADES))
    before = world.candle_rows()
    # A day's first and last candle are complete or not by what Flink sees of the day beside it, as before.
    assert not rebuild_days("BTC-USD", DAYS[:1], None)[DAYS[0]].changed
    assert world.candle_rows().equals(before)
    late = trade("BTC-USD", 9_000_000, START, late=2)
    world.push([late])
    world.wait(lambda: world.iceberg_rows("trades").num_rows == len(world.seen), "the late trade is missing")
    asyncio.run(seal_day(world.iceberg, None, "BTC-USD", DAYS[0]))
    rebuilt = rebuild_days("BTC-USD", DAYS[:1], world.iceberg.snapshot_id(TRADES))[DAYS[0]]
    assert rebuilt.changed
    assert rebuilt.job_id is not None
    counts = world.paimon.scan(CANDLES_1M, product="BTC-USD", day=DAYS[0])["trade_count"].to_pylist()
    archived = world.iceberg.scan(TRADES, product="BTC-USD", day=DAYS[0])
    assert sum(counts) == archived.num_rows
    assert world.iceberg.tags(TRADES) == {}
