"""When product-days are reconciled: each night, those whose accounts may have changed.

A schedule and no automation condition, because nothing need have happened for two accounts to disagree: a
file is damaged, another program writes, the exchange corrects its candles. And a condition would pass over
the days whose blocking checks failed, which are those to look at.
"""

from collections.abc import Collection, Mapping
from datetime import date, timedelta
from itertools import groupby
from typing import Final

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from lakehouse.market.time import DAY_US, from_datetime
from lakehouse.stores.schemas import RECONCILIATION
from lakehouse.stores.seals import SealRecord
from lakehouse.stores.settled import settled_days
from lakehouse_assets.partitions import CAUSE, product_day_key
from lakehouse_assets.resources import Lakehouse

NEWEST_DAYS: Final = 7
"""Days of a product, sealed or fetched as candles, that are compared every night."""
SEALED_WITHIN_US: Final = 8 * DAY_US
"""Older days are compared again when they were sealed (again) this lately: longer than Dagster is down."""

Span = tuple[str, date, date]
"""A product, and the first and last of consecutive days."""


def reconcile_days_job(partitions: dg.PartitionsDefinition[str]) -> UnresolvedAssetJobDefinition:
    """Return the job: choose partitions to compare again."""
    return dg.define_asset_job(
        "reconcile_days",
        selection=[RECONCILIATION.name],
        partitions_def=partitions,
        description=(
            "Compares product-days that are sealed, or whose candles were fetched from the exchange, with "
            "everything that should agree with them, and writes each break to the table `reconciliation`. "
            "Changes no other table."
        ),
    )


def spans_to_reconcile(
    settled: Mapping[tuple[str, date], SealRecord | None],
    reconciled: Collection[tuple[str, date]],
    moment_us: int,
) -> list[Span]:
    """Return what to compare, by product, as unbroken spans of days. Pure.

    Args:
        settled: what has come to rest; see `settled_days`.
        reconciled: product-days that were compared before.
        moment_us: now, µs UTC.
    """
    spans: list[Span] = []
    for product, group in groupby(sorted(settled), key=lambda key: key[0]):
        days = [day for _, day in group]
        newest = set(days[-NEWEST_DAYS:])
        wanted = [
            day
            for day in days
            if day in newest
            or (product, day) not in reconciled
            or ((record := settled[product, day]) and record.sealed_us > moment_us - SEALED_WITHIN_US)
        ]
        for _, run in groupby(enumerate(wanted), key=lambda item: item[1] - timedelta(days=item[0])):
            span = [day for _, day in run]
            spans.append((product, span[0], span[-1]))
    return spans


def reconciliation_schedule(job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """Return the schedule."""

    @dg.schedule(
        name="reconcile_settled_days",
        job=job,
        cron_schedule="30 3 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=(
            "Each night at 03:30 UTC compares every product's last 7 days that are sealed or fetched as "
            "candles, those that were sealed lately, and those never compared: one run for each unbroken "
            "span of days."
        ),
    )
    def reconcile_settled_days(
        context: dg.ScheduleEvaluationContext, lakehouse: Lakehouse
    ) -> list[dg.RunRequest] | dg.SkipReason:
        if not lakehouse.is_written:
            return lakehouse.no_data()
        with lakehouse.iceberg() as store:
            settled = settled_days(store)
        partitions = job.partitions_def
        keys: dict[str, tuple[str, date]] = {product_day_key(*one): one for one in settled}
        keys = {key: one for key, one in keys.items() if partitions and partitions.has_partition_key(key)}
        compared = context.instance.get_materialized_partitions(dg.AssetKey(RECONCILIATION.name))
        spans = spans_to_reconcile(
            {one: settled[one] for one in keys.values()},
            {keys[key] for key in compared if key in keys},
            from_datetime(context.scheduled_execution_time),
        )
        if not spans:
            return dg.SkipReason("no day is sealed or fetched")
        return [
            dg.RunRequest(
                run_key=f"{context.scheduled_execution_time:%Y-%m-%d}:{product}:{first}:{last}",
                tags={
                    "dagster/asset_partition_range_start": product_day_key(product, first),
                    "dagster/asset_partition_range_end": product_day_key(product, last),
                    CAUSE: "nightly reconciliation",
                },
            )
            for product, first, last in spans
        ]

    return reconcile_settled_days
