"""What an asset reports that computes many partitions in one run: a materialization and checks of each.

Dagster 1.13 makes one materialization event for every partition of a run when the asset yields its
`MaterializeResult`, each with the metadata that was added for its key. But it gives the run's check results
to no partition, and it has no way to say that some partitions failed. So an asset ends with

    yield from reported(context, results, failures)

which serves a run of one partition as well. What follows from it, seen by running it:

- Each check is recorded for its partition and for the materialization it looked at, which is what automation
  conditions and the partition's page ask for. A failed blocking check fails the run, after all results are
  recorded, and holds up downstream only its own partition.
- A partition in `failures` gets no materialization, so that it is shown as failed, as is the run. The others
  keep what they have. Downstream assets of the same run are skipped whole: `carry_changes_downstream` asks
  for those of the good partitions, in a run of their own.
- A step that raises `RetryRequested` computes all its partitions again, so raise it before reporting and let
  what is done already be found done. Nothing reported is taken back by it.
- A backfill of `BackfillPolicy.single_run()` makes one run for each product and unbroken range of days (it
  carries `dagster/asset_partition_range_start` and `_end` in its tags); automation conditions ask for such
  ranges as well, while a sensor's `RunRequest(partition_key=...)` stays a run of one partition.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

_SHOWN: Final = 20

PartitionEvent = (
    dg.MaterializeResult[Any] | dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.Output[None]
)
"""What such an asset yields."""


@dataclass(frozen=True)
class PartitionResult:
    """What came of one partition."""

    metadata: Mapping[str, Any]
    """Of its materialization: values that Dagster takes for metadata, by name."""
    checks: Sequence[dg.AssetCheckResult] = field(default=())
    """Results of the asset's own checks, named by `check_name`."""


def reported(
    context: dg.AssetExecutionContext,
    results: Mapping[str, PartitionResult],
    failures: Mapping[str, Exception] = {},
) -> Iterator[PartitionEvent]:
    """Yield the events of a run's partitions: materializations, then checks.

    Args:
        context: of the run; the asset is the only one of its definition.
        results: by partition key.
        failures: why the other partitions of the run could not be computed.

    Raises:
        Failure: there are failures; the results were reported before.
        ValueError: results and failures are not exactly the run's partitions.
    """
    if wrong := set(context.partition_keys) ^ (results.keys() | failures.keys()):
        raise ValueError(f"neither results nor failures, or no partitions of this run: {sorted(wrong)[:5]}")
    if failures:
        for key, result in results.items():
            yield dg.AssetMaterialization(context.asset_key, partition=key, metadata=dict(result.metadata))
    else:
        for key, result in results.items():
            context.add_asset_metadata(result.metadata, partition_key=key)
        yield dg.MaterializeResult()
    yield from _evaluations(context, results)
    if failures:
        shown = "\n".join(f"{key}: {error}" for key, error in list(failures.items())[:_SHOWN])
        raise dg.Failure(
            f"{len(failures)} of the run's {len(context.partition_keys)} partitions failed; what the others "
            f"came to is recorded. Materialize these again:\n{shown}"
        ) from next(iter(failures.values()))
    # Without an output for each check, the step were taken for one that forgot them.
    for check in context.selected_asset_check_keys:
        yield dg.Output(None, output_name=context.assets_def.get_output_name_for_asset_check_key(check))


def together_or_each(
    keys: Sequence[str],
    work: Callable[[Sequence[str]], Mapping[str, PartitionResult]],
    of_one: tuple[type[Exception], ...],
) -> tuple[dict[str, PartitionResult], dict[str, Exception]]:
    """Return what `work` makes of keys, and why it couldn't of some; where it fails, halves are tried.

    Args:
        keys: partition keys.
        work: makes a result for each key; may be called again.
        of_one: errors that may be one key's alone. Others are raised.
    """
    try:
        return dict(work(keys)), {}
    except of_one as error:
        if len(keys) == 1:
            return {}, {keys[0]: error}
    middle = len(keys) // 2
    done, failed = together_or_each(keys[:middle], work, of_one)
    others_done, others_failed = together_or_each(keys[middle:], work, of_one)
    return done | others_done, failed | others_failed


def _evaluations(
    context: dg.AssetExecutionContext, results: Mapping[str, PartitionResult]
) -> Iterator[dg.AssetCheckEvaluation]:
    materialized = context.instance.get_latest_storage_id_by_partition(
        context.asset_key, dg.DagsterEventType.ASSET_MATERIALIZATION, set(results)
    )
    blocking = {spec.name: spec.blocking for spec in context.assets_def.check_specs}
    for key, result in results.items():
        for check in result.checks:
            if check.check_name is None:
                raise ValueError(f"a check of {key} has no name")
            yield dg.AssetCheckEvaluation(
                asset_key=context.asset_key,
                check_name=check.check_name,
                passed=check.passed,
                metadata=check.metadata,
                severity=check.severity,
                description=check.description,
                blocking=blocking[check.check_name],
                partition=key,
                target_materialization_data=AssetCheckEvaluationTargetMaterializationData(
                    storage_id=materialized[key], run_id=context.run.run_id, timestamp=time.time()
                ),
            )
