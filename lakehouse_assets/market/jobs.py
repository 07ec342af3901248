"""What a person starts by hand."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from lakehouse.stores.schemas import CANDLES_1M, TRADES


def seal_days_job(partitions: dg.PartitionsDefinition[str]) -> UnresolvedAssetJobDefinition:
    """Return the job that seals product-days and rebuilds their candles: choose partitions to backfill."""
    return dg.define_asset_job(
        "seal_days",
        selection=[TRADES.name, CANDLES_1M.name],
        partitions_def=partitions,
        description=(
            "Seals product-days and rebuilds their candles. Launch a backfill over days that were never "
            "streamed to fetch their history from the exchange."
        ),
    )
