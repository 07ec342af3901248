from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest

from lakehouse_assets.market.carrying import CARRY_CHANGES
from lakehouse_assets.partition_results import PartitionEvent, PartitionResult, reported

DAYS = [f"2025-06-{day:02}" for day in range(1, 6)]
KEYS = [f"{day}|BTC-USD" for day in DAYS]
RANGE = {"dagster/asset_partition_range_start": KEYS[0], "dagster/asset_partition_range_end": KEYS[-1]}
TRADES, CANDLES = dg.AssetKey("trades"), dg.AssetKey("candles")
CHECK = "is_good"

Compute = Callable[[str, str], PartitionResult | Exception]


def good(asset: str, key: str) -> PartitionResult | Exception:
    return PartitionResult({"rows": len(asset), "key": key}, [checked(key, passed=True)])


def checked(key: str, *, passed: bool) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=passed, check_name=CHECK, metadata={"key": key})


def definitions(compute: Compute) -> dg.Definitions:
    """Two assets of product × day, the second of the first, whose partitions come out as `compute` says."""
    partitions = dg.MultiPartitionsDefinition(
        {
            "product": dg.StaticPartitionsDefinition(["BTC-USD", "ETH-USD"]),
            "day": dg.DailyPartitionsDefinition("2025-06-01", end_date="2025-06-11"),
        }
    )

    def asset(name: str, deps: list[str]) -> dg.AssetsDefinition:
        @dg.asset(
            name=name,
            deps=deps,
            partitions_def=partitions,
            backfill_policy=dg.BackfillPolicy.single_run(),
            check_specs=[dg.AssetCheckSpec(CHECK, asset=name, blocking=True, partitions_def=partitions)],
            automation_condition=CARRY_CHANGES if deps else None,
        )
        def computed(context: dg.AssetExecutionContext) -> Iterator[PartitionEvent]:
            results = {key: compute(name, key) for key in context.partition_keys}
            yield from reported(
                context,
                {key: result for key, result in results.items() if isinstance(result, PartitionResult)},
                {key: result for key, result in results.items() if isinstance(result, Exception)},
            )

        return computed

    return dg.Definitions(
        assets=[asset("trades", []), asset("candles", ["trades"])],
        jobs=[dg.define_asset_job("both", "*", partitions_def=partitions)],
        executor=dg.in_process_executor,
    )


def run(defs: dg.Definitions, instance: dg.DagsterInstance, **how: Any) -> dg.ExecuteInProcessResult:
    how = how or {"tags": RANGE}
    job = defs.resolve_job_def("both")
    return job.execute_in_process(instance=instance, raise_on_error=False, **how)


def materialized(result: dg.ExecuteInProcessResult, asset: dg.AssetKey) -> dict[str, Any]:
    """Return the metadata of each partition's one materialization."""
    events = [event for event in result.get_asset_materialization_events() if event.asset_key == asset]
    found = {
        event.materialization.partition: {k: v.value for k, v in event.materialization.metadata.items()}
        for event in events
    }
    assert len(found) == len(events)
    return found


def checks(result: dg.ExecuteInProcessResult, asset: dg.AssetKey) -> dict[str | None, bool]:
    found = [check for check in result.get_asset_check_evaluations() if check.asset_key == asset]
    assert all(check.metadata["key"].value == check.partition for check in found)
    return {check.partition: check.passed for check in found}


@pytest.mark.parametrize("how", [{"tags": RANGE}, {"partition_key": KEYS[0]}])
def test_every_partition_of_a_run_has_its_own_metadata_and_checks(
    instance: dg.DagsterInstance, how: dict[str, Any]
) -> None:
    defs = definitions(good)
    first = dg.evaluate_automation_conditions(defs, instance)
    result = run(defs, instance, **how)
    assert result.success
    keys = KEYS if "tags" in how else KEYS[:1]
    for asset in (TRADES, CANDLES):
        rows = len(asset.to_user_string())
        assert materialized(result, asset) == {key: {"rows": rows, "key": key} for key in keys}
        assert checks(result, asset) == dict.fromkeys(keys, True)
    second = dg.evaluate_automation_conditions(defs, instance, cursor=first.cursor)
    assert second.total_requested == 0


def test_a_failed_check_fails_the_run_and_holds_up_its_own_partition_only(
    instance: dg.DagsterInstance,
) -> None:
    bad = KEYS[2]

    def compute(asset: str, key: str) -> PartitionResult | Exception:
        return PartitionResult({}, [checked(key, passed=key != bad)])

    defs = definitions(compute)
    first = dg.evaluate_automation_conditions(defs, instance)
    result = run(defs, instance)
    assert not result.success
    assert set(materialized(result, TRADES)) == set(KEYS)
    assert checks(result, TRADES) == {key: key != bad for key in KEYS}
    assert materialized(result, CANDLES) == {}
    second = dg.evaluate_automation_conditions(defs, instance, cursor=first.cursor)
    assert second.get_requested_partitions(CANDLES) == set(KEYS) - {bad}


def test_a_partition_that_fails_is_shown_failed_and_loses_no_others_result(
    instance: dg.DagsterInstance,
) -> None:
    bad = KEYS[2]

    def compute(asset: str, key: str) -> PartitionResult | Exception:
        return OSError("the disk is full") if key == bad else good(asset, key)

    defs = definitions(compute)
    first = dg.evaluate_automation_conditions(defs, instance)
    result = run(defs, instance)
    assert not result.success
    (failure,) = result.get_step_failure_events()
    error = failure.step_failure_data.error
    assert error is not None
    assert f"{bad}: the disk is full" in error.message
    assert set(materialized(result, TRADES)) == set(checks(result, TRADES)) == set(KEYS) - {bad}
    second = dg.evaluate_automation_conditions(defs, instance, cursor=first.cursor)
    assert second.get_requested_partitions(CANDLES) == set(KEYS) - {bad}
    # Once the reason is gone, the partition alone is materialized again.
    again = run(definitions(good), instance, partition_key=bad)
    assert again.success
    assert instance.get_materialized_partitions(TRADES) == set(KEYS)


def test_a_retry_reports_each_partition_once(instance: dg.DagsterInstance) -> None:
    away = [True]

    def compute(asset: str, key: str) -> PartitionResult | Exception:
        if key == KEYS[3] and away and away.pop():
            raise dg.RetryRequested(max_retries=1)
        return good(asset, key)

    result = run(definitions(compute), instance)
    assert result.success
    assert set(materialized(result, TRADES)) == set(KEYS)


def test_results_must_be_those_of_the_runs_partitions(instance: dg.DagsterInstance) -> None:
    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["one", "two"]))
    def forgetful(context: dg.AssetExecutionContext) -> Iterator[PartitionEvent]:
        yield from reported(context, {"two": PartitionResult({})})

    with pytest.raises(ValueError, match="neither results nor failures"):
        dg.materialize([forgetful], partition_key="one", instance=instance)
