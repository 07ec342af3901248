"""Replays where Flink makes the candles: those of the day, side by side, let go by their rule."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from flink_world import FlinkWorld, flink_world, sorted_candles
from running_cluster import RunningCluster
from test_flink_batch import DAY, spread

from lakehouse.stores.schemas import CANDLES_1M, REPLAY_CANDLES_1M, TRADES
from streaming.engines.flink.batch import rebuild_days, replay_day
from streaming.replay.replaying import run
from streaming.replay.settings import Replay, ReplayError, chosen

PRODUCT = "BTC-USD"


@pytest.fixture(scope="module")
def world(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlinkWorld]:
    with flink_world(cluster, tmp_path_factory.mktemp("replay")) as made:
        yield made


def replayed(world: FlinkWorld, replay_id: str) -> pa.Table:
    rows = world.paimon.scan(REPLAY_CANDLES_1M, product=PRODUCT, day=DAY)
    return sorted_candles(rows.filter(pc.equal(rows["replay_id"], replay_id)).select(CANDLES_1M.schema.names))


def replay_of_now(world: FlinkWorld, speed: float | None = None) -> Replay:
    return chosen(world.iceberg, world.paimon, DAY, (PRODUCT,), speed, None)


def test_flink_replays_a_pinned_snapshot_beside_others_until_a_newer_one(world: FlinkWorld) -> None:
    world.iceberg.append(TRADES, spread([*range(1, 60), *range(62, 90)], PRODUCT, DAY, 7_000_000))
    replay = replay_of_now(world)
    rebuild_days(world.flink, PRODUCT, {DAY: []}, snapshot_id=replay.snapshot_id)
    live = sorted_candles(world.paimon.scan(CANDLES_1M, product=PRODUCT, day=DAY))
    assert live["is_complete"].to_pylist().count(False) > 2
    replay_day(world.flink, PRODUCT, DAY, replay_id="another", snapshot_id=replay.snapshot_id)

    world.iceberg.append(TRADES, spread([60, 61], PRODUCT, DAY, 7_000_000))
    done = run(world.settings, world.home, world.iceberg, world.paimon, replay)
    assert (done.trades, done.finished, len(done.job_ids)) == (87, True, 1)
    assert replayed(world, replay.id).equals(live)
    assert replayed(world, "another").equals(live)
    rows = world.paimon.scan(REPLAY_CANDLES_1M)
    assert set(rows["trades_snapshot_id"].to_pylist()) == {replay.snapshot_id}
    assert world.iceberg.tags(TRADES)[replay.tag] == replay.snapshot_id

    newer = replay_of_now(world)
    run(world.settings, world.home, world.iceberg, world.paimon, newer)
    assert pc.sum(replayed(world, newer.id)["trade_count"]).as_py() == 89
    assert replayed(world, "another").equals(live)
    assert replayed(world, replay.id).num_rows == 0
    assert replay.tag not in world.iceberg.tags(TRADES)

    paced = replay_of_now(world, 60.0)
    with pytest.raises(ReplayError, match="--speed max"):
        run(world.settings, world.home, world.iceberg, world.paimon, paced)
    assert paced.tag not in world.iceberg.tags(TRADES)
