"""What a person starts by hand."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from lakehouse.stores.schemas import CANDLES_1M, EXCHANGE_CANDLES, TRADES


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


def fill_days_job(partitions: dg.PartitionsDefinition[str]) -> UnresolvedAssetJobDefinition:
    """Return the job that gives product-days the exchange's candles: choose partitions to backfill."""
    return dg.define_asset_job(
        "fill_days_with_exchange_candles",
        selection=[EXCHANGE_CANDLES.name, CANDLES_1M.name],
        partitions_def=partitions,
        description=(
            "Fetches the exchange's own one-minute candles of product-days, and fills `candles_1m` with them "
            "where no trade of the day is archived. Launch a backfill over days that are so old that their "
            "trades can't be had, or are not worth the requests: a day is five of them. Days with archived "
            "trades keep the candles of those."
        ),
    )
