from collections.abc import Callable
from datetime import timedelta

import dagster as dg
import pyarrow as pa
from sealed_world import BTC, DAY, KEY

from lakehouse.stores.schemas import TRADES
from lakehouse.stores.seals import seals
from lakehouse_assets.partitions import product_day_key
from lakehouse_assets.resources import Lakehouse

Materialize = Callable[..., dg.ExecuteInProcessResult]
CANDLES = dg.AssetKey("candles_1m")
OLDER = product_day_key(BTC, DAY - timedelta(days=1))


def test_a_sealed_day_is_carried_to_its_candles_and_only_once(
    defs: dg.Definitions, instance: dg.DagsterInstance, materialize: Materialize
) -> None:
    first = dg.evaluate_automation_conditions(defs, instance)
    assert first.total_requested == 0
    materialize(KEY, "trades")
    second = dg.evaluate_automation_conditions(defs, instance, cursor=first.cursor)
    assert second.get_requested_partitions(CANDLES) == {KEY}
    materialize(KEY, "candles_1m")
    third = dg.evaluate_automation_conditions(defs, instance, cursor=second.cursor)
    assert third.get_requested_partitions(CANDLES) == set()
    # Not only the latest day: an older one that is sealed later is carried as well.
    materialize(OLDER, "trades")
    fourth = dg.evaluate_automation_conditions(defs, instance, cursor=third.cursor)
    assert fourth.get_requested_partitions(CANDLES) == {OLDER}


def test_a_day_whose_blocking_check_failed_is_not_carried_and_holds_up_no_other(
    defs: dg.Definitions, instance: dg.DagsterInstance, tables: Lakehouse, materialize: Materialize
) -> None:
    first = dg.evaluate_automation_conditions(defs, instance)
    materialize(KEY, "trades")
    with tables.iceberg() as store:
        store.append(TRADES, store.scan(TRADES, product=BTC, day=DAY).slice(0, 1))
    run = materialize(KEY, "trades", raise_on_error=False)
    assert not run.success
    materialize(OLDER, "trades")
    second = dg.evaluate_automation_conditions(defs, instance, cursor=first.cursor)
    assert second.get_requested_partitions(CANDLES) == {OLDER}
    with tables.iceberg() as store:
        rows = store.scan(TRADES, product=BTC, day=DAY)
        repaired = pa.Table.from_pylist(
            list({row["trade_id"]: row for row in rows.to_pylist()}.values()), TRADES.schema
        )
        store.replace(TRADES, BTC, DAY, repaired)
    materialize(KEY, "trades")
    third = dg.evaluate_automation_conditions(defs, instance, cursor=second.cursor)
    assert third.get_requested_partitions(CANDLES) == {KEY}


def test_what_was_made_before_the_first_look_is_carried_too(
    defs: dg.Definitions, instance: dg.DagsterInstance, materialize: Materialize
) -> None:
    materialize(KEY, "trades")  # as the first start does, while Dagster still loads
    first = dg.evaluate_automation_conditions(defs, instance)
    for name in ("candles_1m", "candles_1d", "metrics_daily", "exchange_health"):
        assert first.get_requested_partitions(dg.AssetKey(name)) == {KEY}, name
    second = dg.evaluate_automation_conditions(defs, instance, cursor=first.cursor)
    assert second.total_requested == 0


MADE_OF_CANDLES = ("candles_1h", "candles_1d", "metrics_daily")


def test_a_sealed_day_is_carried_to_all_that_is_made_of_it_in_one_run(
    defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    job = defs.resolve_implicit_global_asset_job_def()

    def materialize(*assets: str) -> dg.ExecuteInProcessResult:
        selection = [dg.AssetKey(name) for name in assets]
        return job.execute_in_process(partition_key=KEY, instance=instance, asset_selection=selection)

    first = dg.evaluate_automation_conditions(defs, instance)
    materialize("trades", "quotes", "book")
    second = dg.evaluate_automation_conditions(defs, instance, cursor=first.cursor)
    carried = ("candles_1m", *MADE_OF_CANDLES, "exchange_health", "liquidity")
    for name in carried:
        assert second.get_requested_partitions(dg.AssetKey(name)) == {KEY}, name
    materialize(*carried)
    third = dg.evaluate_automation_conditions(defs, instance, cursor=second.cursor)
    assert third.total_requested == 0


def test_candles_whose_blocking_check_failed_are_not_carried(
    defs: dg.Definitions, instance: dg.DagsterInstance, tables: Lakehouse, materialize: Materialize
) -> None:
    materialize(KEY, "trades")
    materialize(KEY, "candles_1m")
    first = dg.evaluate_automation_conditions(defs, instance)
    with tables.iceberg() as store:
        # A trade at a price of zero: its candle is what the trades say, and can't be right.
        record = seals(store)[BTC, DAY]
        late = store.scan(TRADES, product=BTC, day=DAY).slice(0, 1).to_pylist()[0]
        late |= {"trade_id": record.first_id - 5, "price": late["price"] - late["price"]}
        store.append(TRADES, pa.Table.from_pylist([late], TRADES.schema))
    run = materialize(KEY, "candles_1m", raise_on_error=False)
    failed = {check.check_name for check in run.get_asset_check_evaluations() if not check.passed}
    assert failed == {"prices_in_order"}
    second = dg.evaluate_automation_conditions(defs, instance, cursor=first.cursor)
    for name in MADE_OF_CANDLES:
        assert second.get_requested_partitions(dg.AssetKey(name)) == set()


def test_the_sensor_that_carries_starts_by_itself(defs: dg.Definitions) -> None:
    for name in ("carry_changes_downstream", "seal_days_that_are_over"):
        assert defs.resolve_sensor_def(name).default_status is dg.DefaultSensorStatus.RUNNING
