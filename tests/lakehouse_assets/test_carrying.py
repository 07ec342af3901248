from collections.abc import Callable
from datetime import timedelta

import dagster as dg
import pyarrow as pa
from sealed_world import BTC, DAY, KEY

from lakehouse.stores.schemas import TRADES
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
    assert third.total_requested == 0
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


def test_the_sensor_that_carries_starts_by_itself(defs: dg.Definitions) -> None:
    for name in ("carry_changes_downstream", "seal_days_that_are_over"):
        assert defs.resolve_sensor_def(name).default_status is dg.DefaultSensorStatus.RUNNING
