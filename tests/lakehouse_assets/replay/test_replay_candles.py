from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from sealed_world import BTC, DAY, KEY, LIVE_KEY

from lakehouse.stores.schemas import CANDLES_1M, REPLAY_CANDLES_1M, TRADES
from lakehouse.stores.seals import SealRecord
from lakehouse_assets import retries
from lakehouse_assets.definitions import build_defs
from lakehouse_assets.partitions import product_day_key
from lakehouse_assets.replay import candles as candles_module
from lakehouse_assets.replay.schedule import last_sealed
from lakehouse_assets.resources import Lakehouse
from streaming.spine.contract import SpineUnavailableError

Materialize = Callable[..., dg.ExecuteInProcessResult]
ASSET = REPLAY_CANDLES_1M.name
CHECK = "equals_live_candles"


def replayed(
    defs: dg.Definitions, instance: dg.DagsterInstance, key: str | None = KEY, **how: Any
) -> dg.ExecuteInProcessResult:
    config = how.pop("config", None)
    run_config = {"ops": {ASSET: {"config": config}}} if config else None
    job = defs.resolve_job_def("replay")
    how.setdefault("raise_on_error", True)
    return job.execute_in_process(partition_key=key, instance=instance, run_config=run_config, **how)


def metadata(run: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = run.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def check(run: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (evaluation,) = run.get_asset_check_evaluations()
    assert evaluation.check_name == CHECK
    return evaluation


def test_a_replay_of_a_sealed_day_equals_the_live_candles(
    defs: dg.Definitions, instance: dg.DagsterInstance, tables: Lakehouse, materialize: Materialize
) -> None:
    materialize(KEY)
    run = replayed(defs, instance)
    said = metadata(run)
    assert check(run).passed
    assert check(run).partition == KEY
    assert said["speed"] == "max"
    assert said["trades"] == said["trades_of_this_run"] > 100
    assert said["trades_per_second"] > 0
    with tables.iceberg() as store, tables.paimon() as paimon:
        assert said["trades_snapshot_id"] == str(store.snapshot_id(TRADES))
        assert store.tags(TRADES)[f"replay.{said['replay_id']}"] == store.snapshot_id(TRADES)
        rows = paimon.scan(REPLAY_CANDLES_1M, product=BTC, day=DAY)
        assert said["candles"] == rows.num_rows == said["dagster/partition_row_count"]
        assert rows.num_rows == paimon.scan(CANDLES_1M, product=BTC, day=DAY).num_rows
    again = replayed(defs, instance, config={"speed": "1e6"})
    assert check(again).passed
    assert metadata(again)["replay_id"] != said["replay_id"]
    assert metadata(again)["dagster/partition_row_count"] == 2 * said["candles"]
    assert metadata(again)["dagster/row_count"] == 2 * said["candles"]
    lineage = said["dagster/column_lineage"].deps_by_column
    assert set(lineage) == set(CANDLES_1M.schema.names)
    (source,) = lineage["start"]
    assert (source.asset_key, source.column_name) == (dg.AssetKey("trades"), "event_time")


def test_live_candles_that_are_others_are_found_and_explained(
    defs: dg.Definitions, instance: dg.DagsterInstance, tables: Lakehouse, materialize: Materialize
) -> None:
    materialize(KEY)
    with tables.paimon() as store:
        rows = store.scan(CANDLES_1M, product=BTC, day=DAY).sort_by("start")
        changed = rows.to_pylist()
        changed[1]["close"] += 1
        changed[3]["revision"] += 1
        changed[4]["recorded_at"] += timedelta(seconds=1)
        store.replace(
            *(CANDLES_1M, BTC, DAY), pa.Table.from_pylist(changed[:2] + changed[3:], CANDLES_1M.schema)
        )
    run = replayed(defs, instance)
    assert run.success
    found = check(run)
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert "Materialize `candles_1m`" in (found.description or "")
    records = found.metadata["first_findings"].records
    assert [record.data["differs"] for record in records] == [
        *("close", "no live candle", "revision", "recorded_at")
    ]


def test_days_of_one_run_have_results_of_their_own(
    defs: dg.Definitions, instance: dg.DagsterInstance, materialize: Materialize
) -> None:
    materialize(KEY)
    run = replayed(
        defs,
        instance,
        key=None,
        tags={"dagster/asset_partition_range_start": KEY, "dagster/asset_partition_range_end": LIVE_KEY},
    )
    events = run.get_asset_materialization_events()
    trades = {e.materialization.partition: e.materialization.metadata["trades"].value for e in events}
    assert trades.keys() == {KEY, LIVE_KEY}
    assert trades[LIVE_KEY] == 0 < trades[KEY]
    assert {e.partition: e.passed for e in run.get_asset_check_evaluations()} == {KEY: True, LIVE_KEY: True}


def test_wrong_settings_fail_their_partition_with_a_sentence(
    defs: dg.Definitions, instance: dg.DagsterInstance, materialize: Materialize
) -> None:
    materialize(KEY)
    for config, sentence in (
        ({"speed": "fast"}, "write max"),
        ({"snapshot_id": "12345"}, "expired"),
        ({"snapshot_id": "newest"}, "is no snapshot"),
    ):
        run = replayed(defs, instance, config=config, raise_on_error=False)
        assert not run.success
        (failure,) = run.get_step_failure_events()
        error = failure.step_failure_data.error
        assert error is not None
        assert sentence in error.to_string()


def test_a_log_that_is_away_is_tried_again(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    materialize: Materialize,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    materialize(KEY)
    monkeypatch.setattr(retries, "FIRST_WAIT_SECONDS", 0)
    run_it, failures = candles_module.run, ["away", "away"]

    def often_away(*arguments: Any) -> Any:
        if failures:
            raise SpineUnavailableError(failures.pop())
        return run_it(*arguments)

    monkeypatch.setattr(candles_module, "run", often_away)
    run = replayed(defs, instance)
    assert check(run).passed
    assert [event.event_type_value for event in run.all_events].count("STEP_UP_FOR_RETRY") == 2


def test_each_night_the_last_sealed_day_of_every_product_is_asked_for(
    defs: dg.Definitions, tables: Lakehouse, instance: dg.DagsterInstance, materialize: Materialize
) -> None:
    schedule = defs.resolve_schedule_def("replay_last_sealed_day")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING

    def asked() -> list[dg.RunRequest]:
        with dg.build_schedule_context(
            instance=instance,
            resources={"lakehouse": tables},
            repository_def=defs.get_repository_def(),
        ) as context:
            return list(schedule.evaluate_tick(context).run_requests or [])

    assert asked() == []
    materialize(KEY, "trades")
    materialize(product_day_key(BTC, DAY - timedelta(days=1)), "trades")
    (request,) = asked()
    assert request.partition_key == KEY
    assert [again.run_key for again in asked()] == [request.run_key]
    assert replayed(build_defs(), instance, request.partition_key).success


def test_the_last_sealed_day_is_one_with_trades() -> None:
    def sealed(rows: int) -> SealRecord:
        return SealRecord(rows, 0, 1, rows, "c", True, 0)

    days = [date(2025, 6, day) for day in (1, 2, 3)]
    found = last_sealed(
        {
            ("BTC-USD", days[1]): sealed(5),
            ("BTC-USD", days[0]): sealed(5),
            ("BTC-USD", days[2]): sealed(0),
            ("ETH-USD", days[0]): sealed(1),
        }
    )
    assert {product: day for product, (day, _) in found.items()} == {"BTC-USD": days[1], "ETH-USD": days[0]}
