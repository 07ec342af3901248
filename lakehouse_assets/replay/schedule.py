"""The job that replays, and the schedule that does so each night with what was sealed last."""

from datetime import date

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from lakehouse.stores.schemas import REPLAY_CANDLES_1M
from lakehouse.stores.seals import SealRecord, seals
from lakehouse_assets.partitions import CAUSE, product_day_key
from lakehouse_assets.resources import Lakehouse


def replay_job(partitions: dg.PartitionsDefinition[str]) -> UnresolvedAssetJobDefinition:
    """Return the job that replays product-days."""
    return dg.define_asset_job(
        "replay",
        selection=[REPLAY_CANDLES_1M.name],
        partitions_def=partitions,
        description=(
            "Replays product-days from the archive and checks that the candles come out as they are. The "
            "speed and the snapshot are in the run's configuration."
        ),
    )


def replay_schedule(
    job: UnresolvedAssetJobDefinition, partitions: dg.PartitionsDefinition[str]
) -> dg.ScheduleDefinition:
    """Return the nightly schedule; what it asks for follows from the tables alone."""

    @dg.schedule(
        name="replay_last_sealed_day",
        job=job,
        cron_schedule="30 3 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=(
            "Each night replays the last sealed day of every product, unless it was replayed as it is sealed "
            "now."
        ),
    )
    def replay_last_sealed_day(lakehouse: Lakehouse) -> list[dg.RunRequest] | dg.SkipReason:
        if not lakehouse.is_written:
            return lakehouse.no_data()
        with lakehouse.iceberg() as store:
            last = last_sealed(seals(store))
        requests = [
            dg.RunRequest(
                run_key=f"{key}:{record.checksum}",
                partition_key=key,
                tags={CAUSE: "nightly replay of the last sealed day"},
            )
            for product, (day, record) in sorted(last.items())
            if partitions.has_partition_key(key := product_day_key(product, day))
        ]
        return requests or dg.SkipReason("no day of the configured products is sealed yet")

    return replay_last_sealed_day


def last_sealed(
    sealed: dict[tuple[str, date], SealRecord],
) -> dict[str, tuple[date, SealRecord]]:
    """Return the last sealed day of each product with trades on it."""
    last: dict[str, tuple[date, SealRecord]] = {}
    for (product, day), record in sealed.items():
        if record.rows and (product not in last or day > last[product][0]):
            last[product] = day, record
    return last
