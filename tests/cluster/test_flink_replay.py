"""Replays where Flink makes the candles: those of the day, side by side, let go by their rule."""

from collections.abc import Iterator
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from flink_world import FlinkWorld, flink_world, sorted_candles
from running_cluster import RunningCluster
from test_flink_batch import DAY, spread

from lakehouse.stores.schemas import CANDLES_1M, REPLAY_CANDLES_1M, TRADES
from streaming.engines.flink.batch import rebuild_day
from streaming.replay import release
from streaming.replay.replaying import run
from streaming.replay.settings import Replay, ReplayError, chosen

PRODUCTS = ("BTC-USD", "ETH-USD")


@pytest.fixture(scope="module")
def world(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlinkWorld]:
    with flink_world(cluster, tmp_path_factory.mktemp("replay")) as made:
        yield made


def replayed(world: FlinkWorld, replay: Replay, product: str) -> pa.Table:
    rows = world.paimon.scan(REPLAY_CANDLES_1M, product=product, day=DAY)
    own = rows.filter(pc.equal(rows["replay_id"], replay.id))
    assert set(own["trades_snapshot_id"].to_pylist()) == {replay.snapshot_id}
    return sorted_candles(own.select(CANDLES_1M.schema.names))


def live(world: FlinkWorld, product: str) -> pa.Table:
    return sorted_candles(world.paimon.scan(CANDLES_1M, product=product, day=DAY))


def test_flink_replays_a_pinned_snapshot_beside_others(
    world: FlinkWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    for product in PRODUCTS:
        world.iceberg.append(TRADES, spread([*range(1, 60), *range(62, 90)], product, DAY, 7_000_000))
        snapshot_id = world.iceberg.snapshot_id(TRADES)
        assert snapshot_id is not None
        rebuild_day(world.flink, product, DAY, snapshot_id=snapshot_id)
    both = chosen(world.iceberg, world.paimon, DAY, PRODUCTS, None, None)
    done = run(world.settings, world.home, world.iceberg, world.paimon, both)
    assert (done.trades, done.finished, len(set(done.job_ids))) == (2 * 87, True, 2)
    wanted = {product: live(world, product) for product in PRODUCTS}
    for product in PRODUCTS:
        assert wanted[product].num_rows > 5
        assert replayed(world, both, product).equals(wanted[product])

    world.iceberg.append(TRADES, spread([60, 61], "BTC-USD", DAY, 7_000_000))
    one = chosen(world.iceberg, world.paimon, DAY, ("BTC-USD",), None, None)
    run(world.settings, world.home, world.iceberg, world.paimon, one)
    run(world.settings, world.home, world.iceberg, world.paimon, both)  # again, at its own snapshot
    assert replayed(world, both, "BTC-USD").equals(wanted["BTC-USD"])
    assert pc.sum(replayed(world, one, "BTC-USD")["trade_count"]).as_py() == 89
    assert {both.tag, one.tag} <= world.iceberg.tags(TRADES).keys()

    paced = chosen(world.iceberg, world.paimon, DAY, PRODUCTS, 60.0, None)
    with pytest.raises(ReplayError, match="--speed max"):
        run(world.settings, world.home, world.iceberg, world.paimon, paced)
    assert paced.tag not in world.iceberg.tags(TRADES)

    monkeypatch.setattr(release, "KEPT", timedelta(0))
    last = chosen(world.iceberg, world.paimon, DAY, ("ETH-USD",), None, None)
    run(world.settings, world.home, world.iceberg, world.paimon, last)
    left = set(world.paimon.scan(REPLAY_CANDLES_1M)["replay_id"].to_pylist())
    assert left <= {last.id}
    assert {tag for tag in world.iceberg.tags(TRADES) if tag.startswith("replay.")} <= {last.tag}
