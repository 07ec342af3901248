"""Dagster's graph where Flink makes the tables: from sealed days to maintenance, beside a stream."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import dagster as dg
import pytest
from flink_world import FlinkWorld, flink_world, sorted_candles
from log_messages import trade
from pydantic import SecretStr
from running_cluster import RunningCluster
from sealed_world import BTC, DAY, NEXT_DAY, PRODUCTS, simulated_exchange
from table_rows import make_quotes

from lakehouse.candles.rebuild import rebuild
from lakehouse.candles.rollup import WIDTH_US, rolled_up
from lakehouse.market.time import HOUR_US, day_start_us
from lakehouse.settings import Settings
from lakehouse.stores.schemas import (
    CANDLES_1D,
    CANDLES_1H,
    CANDLES_1M,
    QUOTES,
    RECONCILIATION,
    REPLAY_CANDLES_1M,
    TRADES,
)
from lakehouse.stores.seals import edges_of_days, seals
from lakehouse_assets.definitions import build_defs
from lakehouse_assets.partitions import product_day_key
from streaming.engines.flink import batch

pytestmark = pytest.mark.timeout(900)

ETH = "ETH-USD"
DAYS = [DAY - timedelta(days=back) for back in (2, 1, 0)]
KEYS = [product_day_key(BTC, day) for day in DAYS]
SEALED = ("trades", "quotes", "book")
CANDLES = ("candles_1m", "candles_1h", "candles_1d")
DAILY = ("metrics_daily", "liquidity", "exchange_health")
ALL = (*SEALED, *CANDLES, *DAILY, "reconciliation")


def environment(settings: Settings) -> dict[str, str]:
    """Return what a person would set to get the settings."""
    found = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        elif isinstance(value, tuple):
            value = ",".join(value)
        if value is not None:
            found[f"LAKEHOUSE_{name.upper()}"] = str(value)
    return found


@dataclass
class Graph:
    """The definitions as `dagster dev` loads them in the profile, an instance, and the tables."""

    world: FlinkWorld
    defs: dg.Definitions
    instance: dg.DagsterInstance

    def run(self, keys: list[str], *assets: str, job: str | None = None) -> dg.ExecuteInProcessResult:
        """Materialize assets for a range of days in one run, as a backfill does."""
        graph = self.defs.resolve_job_def(job) if job else self.defs.resolve_implicit_global_asset_job_def()
        return graph.execute_in_process(
            instance=self.instance,
            tags={
                "dagster/asset_partition_range_start": keys[0],
                "dagster/asset_partition_range_end": keys[-1],
            },
            asset_selection=[dg.AssetKey(name) for name in assets],
            raise_on_error=False,
        )


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str | None, dict[str, Any]]:
    return {
        event.materialization.partition: {k: v.value for k, v in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey(asset)
    }


def failed(result: dg.ExecuteInProcessResult) -> set[tuple[str | None, str]]:
    return {
        (check.partition, check.check_name)
        for check in result.get_asset_check_evaluations()
        if not check.passed
    }


@pytest.fixture(scope="module")
def world(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlinkWorld]:
    """A home fed by the simulated exchange, where Flink's stream writes another product than is sealed."""
    with (
        simulated_exchange() as exchange,
        flink_world(
            cluster,
            tmp_path_factory.mktemp("graph"),
            feed="simulated",
            products=PRODUCTS,
            simulated_rest_port=int(exchange.rest_url.rpartition(":")[2]),
        ) as made,
    ):
        made.iceberg.append(QUOTES, make_quotes(range(0, 86_400, 20), BTC, DAY))
        made.job().ensure()
        for day, first_id in ((DAY, 1), (NEXT_DAY, 101)):
            at = day_start_us(day) + 2 * HOUR_US
            made.push([trade(ETH, first_id + n, at + n * 5_000_000) for n in range(100)])
        made.wait(lambda: made.streamed_trades() == 200, "trades are missing")
        made.wait(lambda: made.streamed_candles() == made.wanted(), "candles differ")
        yield made


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


@pytest.fixture
def graph(world: FlinkWorld, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Graph:
    for name, value in environment(world.settings).items():
        monkeypatch.setenv(name, value)
    return Graph(world, build_defs(), instance)


def test_one_run_makes_everything_of_several_days_and_says_which_jobs_did(graph: Graph) -> None:
    result = graph.run(KEYS, *ALL)
    assert result.success
    assert failed(result) == set()
    checked = {
        (check.asset_key.to_user_string(), check.partition) for check in result.get_asset_check_evaluations()
    }
    assert checked == {(asset, key) for asset in ALL for key in KEYS}
    assert {product for product, _ in seals(graph.world.iceberg)} == {BTC}
    for asset in ALL:
        assert set(metadata(result, asset)) == set(KEYS), asset
    jobs = {asset: {said["flink_job_id"] for said in metadata(result, asset).values()} for asset in CANDLES}
    assert [len(of_asset) for of_asset in jobs.values()] == [1, 1, 1]
    with graph.world.flink.job_manager() as manager:
        assert {manager.state(job_id) for of_asset in jobs.values() for job_id in of_asset} == {"FINISHED"}

    iceberg, paimon = graph.world.iceberg, graph.world.paimon
    edges = edges_of_days(iceberg, BTC, DAYS)
    for day in DAYS:
        minutes = paimon.scan(CANDLES_1M, product=BTC, day=day)
        wanted = rebuild(iceberg.scan(TRADES, product=BTC, day=day), edges[day])
        assert sorted_candles(minutes).equals(sorted_candles(wanted))
        assert minutes.num_rows > 500
        for table in (CANDLES_1H, CANDLES_1D):
            found = paimon.scan(table, product=BTC, day=day)
            assert sorted_candles(found).equals(sorted_candles(rolled_up(minutes, WIDTH_US[table.name])))
    for said in metadata(result, "metrics_daily").values():
        assert said["dagster/partition_row_count"] == 1
    assert iceberg.scan(RECONCILIATION).num_rows == 0
    # The stream's own days stay as they were.
    streamed, wanted_of_stream = graph.world.candles(), graph.world.wanted()
    assert {key: streamed[key] for key in wanted_of_stream} == wanted_of_stream


def test_candles_that_are_gone_are_found_and_a_rebuild_mends_them(graph: Graph) -> None:
    key = KEYS[1]
    batch.empty_days(graph.world.flink, CANDLES_1M, BTC, [DAYS[1]])
    found = graph.run([key], "reconciliation")
    assert not found.success  # it blocks
    assert (key, "archive_candles_missing") in failed(found)
    assert "MISSING" in graph.world.iceberg.scan(RECONCILIATION)["kind"].to_pylist()
    mended = graph.run(KEYS, "candles_1m", "reconciliation")
    assert mended.success
    assert [metadata(mended, "candles_1m")[one]["changed"] for one in KEYS] == [False, True, False]
    assert failed(mended) == set()
    assert graph.world.iceberg.scan(RECONCILIATION).num_rows == 0


def test_a_replay_equals_the_live_candles(graph: Graph) -> None:
    result = graph.run(KEYS[-1:], REPLAY_CANDLES_1M.name, job="replay")
    assert result.success
    ((key, said),) = metadata(result, REPLAY_CANDLES_1M.name).items()
    assert key == KEYS[-1]
    assert said["candles"] == graph.world.paimon.scan(CANDLES_1M, product=BTC, day=DAY).num_rows
    assert len(said["flink_job_id"]) == 32
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.partition, check.passed) == ("equals_live_candles", key, True)


def test_both_kinds_of_tables_are_maintained(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    # What was written two hours ago is due; here, a second ago.
    monkeypatch.setattr(batch, "compact", partial(batch.compact, idle=timedelta(seconds=1)))
    before = graph.world.candle_rows()
    result = graph.defs.resolve_job_def("maintain_tables").execute_in_process(
        instance=graph.instance,
        asset_selection=[dg.AssetKey(["maintenance", name]) for name in ("candles_1m", "trades")],
        raise_on_error=False,
    )
    assert result.success
    assert failed(result) == set()
    said = {
        event.asset_key.path[-1]: {k: v.value for k, v in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }
    assert len(said["candles_1m"]["flink_job_id"]) == 32
    assert said["candles_1m"]["files_after"] == len(graph.world.paimon.partitions(CANDLES_1M))
    assert said["candles_1m"]["orphans_removed"] == 0
    assert said["trades"]["files_after"] <= said["trades"]["files_before"]
    assert graph.world.candle_rows().equals(before)


def test_every_sensor_is_evaluated_and_finds_the_day_that_is_over(graph: Graph) -> None:
    found: dict[str, dg.SensorResult | dg.SkipReason] = {}
    for sensor in graph.defs.sensors or ():
        assert isinstance(sensor, dg.SensorDefinition)
        if isinstance(sensor, dg.AutomationConditionSensorDefinition):
            continue
        resources = dict(graph.defs.resources or {})
        with dg.build_sensor_context(
            instance=graph.instance,
            resources={key: resources[key] for key in sensor.required_resource_keys},
            definitions=graph.defs,
        ) as context:
            tick = sensor(context)
        assert isinstance(tick, dg.SensorResult | dg.SkipReason)
        found[sensor.name] = tick
    seal = found["seal_days_that_are_over"]
    assert isinstance(seal, dg.SensorResult)
    assert [request.partition_key for request in seal.run_requests or ()] == [product_day_key(ETH, DAY)]
    reported = found["report_stream_watermarks"]
    assert isinstance(reported, dg.SensorResult)
    assert [event.asset_key for event in reported.asset_events] == [
        dg.AssetKey(["stream", name]) for name in ("trades", "quotes")
    ]
