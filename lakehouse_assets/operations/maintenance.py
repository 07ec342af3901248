"""The assets `maintenance/<table>`: each table kept small, with figures before and after.

An asset for each table, so that a run waits for the writer of its own table only (they share a pool), and a
table that grows is seen by its own plots. It also is the asset of the tables that the stream keeps about
itself. Lance's tables get theirs the same way: `optimize` goes where `streaming.engines.maintaining`
chooses between the stores.
"""

from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from pydantic import Field

from lakehouse.home import Home
from lakehouse.settings import load_settings
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import TABLES, Table
from lakehouse.stores.table_size import iceberg_missing, paimon_missing
from lakehouse_assets.market.description import table_metadata
from lakehouse_assets.operations.record_checks import record_checks
from lakehouse_assets.partitions import CAUSE
from lakehouse_assets.resources import Lakehouse, LakehouseDuckDB
from lakehouse_assets.retries import another_attempt
from streaming.engines.flink.errors import FlinkUnavailableError
from streaming.engines.maintaining import Maintained, maintain

GROUP: Final = "operations"
OWNERS: Final = ["team:market-data"]
PREFIX: Final = "maintenance"
ORPHANS_HOUR: Final = 3
"""UTC hour whose run looks at every file: the sealed days of yesterday are through by then."""

_SHOWN: Final = 20


class MaintenanceConfig(dg.Config):
    """What a run does besides merging and expiring."""

    look_for_orphans: bool = Field(
        True,
        description="Look at every file of the table for those that nothing names; slow for a large one.",
    )


def maintenance_key(table: Table) -> dg.AssetKey:
    """Return the key of a table's maintenance."""
    return dg.AssetKey([PREFIX, table.name])


def maintenance_assets(home: Home) -> list[dg.AssetsDefinition]:
    """Return the maintenance of every table."""
    return [_maintenance(table, home) for table in TABLES.values()]


def _maintenance(table: Table, home: Home) -> dg.AssetsDefinition:
    @dg.asset(
        key=maintenance_key(table),
        description=(
            f"Keeps `{table.name}` small while it is written: merges small files, expires old snapshots "
            "(each hour of two days and each day of ninety stay readable, and what is tagged), deletes files "
            "that nothing names any more, and looks for what a killed process left. Nothing that a reader, a "
            "tag or a writer needs is touched."
        ),
        group_name=GROUP,
        owners=OWNERS,
        kinds={table.store},
        tags={"layer": "operations", "namespace": home.namespace},
        metadata=table_metadata(table, home),
        check_specs=[
            dg.AssetCheckSpec(
                "no_file_is_missing",
                asset=maintenance_key(table),
                description="Every data file that the newest snapshot or a tag names is on the disk.",
            ),
            *(check.spec(maintenance_key(table)) for check in record_checks(table)),
        ],
        freshness_policy=dg.FreshnessPolicy.time_window(
            fail_window=timedelta(hours=26), warn_window=timedelta(hours=3)
        ),
        # The table's writers have the same pool: a merge and a rebuild would get in each other's way.
        pool=f"{table.name}_writer",
        code_version="1",
    )
    def maintenance(
        context: dg.AssetExecutionContext,
        config: MaintenanceConfig,
        lakehouse: Lakehouse,
        duckdb: LakehouseDuckDB,
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        with lakehouse.iceberg() as iceberg, lakehouse.paimon() as paimon:
            settings = load_settings(home=lakehouse.home.root)
            try:
                done = maintain(
                    settings,
                    lakehouse.home,
                    iceberg,
                    paimon,
                    table,
                    look_for_orphans=config.look_for_orphans,
                )
            except FlinkUnavailableError as error:
                raise another_attempt(context, error) from error
            is_iceberg = table.store == "iceberg"
            gone = iceberg_missing(iceberg, table) if is_iceberg else paimon_missing(paimon, table)
            store = iceberg if is_iceberg else paimon
            now: dict[str, Any] = {"snapshot_id": str(store.snapshot_id(table))}
            if not gone:
                now["dagster/row_count"] = store.row_count(table)
        checked = [_check(table, gone)]
        if not gone and (asked := record_checks(table)):
            with duckdb.get_connection() as connection:
                checked += [check.evaluated(connection) for check in asked]
        return dg.MaterializeResult(metadata=_metadata(done) | now, check_results=checked)

    return maintenance


def _metadata(done: Maintained) -> dict[str, Any]:
    sizes = {
        f"{name}_{moment}": value
        for moment, size in (("before", done.before), ("after", done.after))
        for name, value in asdict(size).items()
    }
    work = {
        "merged_files": done.merged_files,
        "expired_snapshots": done.expired_snapshots,
        "deleted_files": done.deleted_files,
        "orphans_removed": done.orphans,
        "files_waiting": done.waiting,
        "flink_job_id": done.job_id,
        "seconds": round(done.seconds, 3),
    }
    return sizes | {name: value for name, value in work.items() if value is not None}


def _check(table: Table, gone: list[str]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=not gone,
        check_name="no_file_is_missing",
        severity=dg.AssetCheckSeverity.ERROR,
        description=None
        if not gone
        else f"{len(gone)} data files of {table.name} are gone: queries over them fail. Restore them from a "
        "copy, or materialize the partitions that they belong to again (their paths say which).",
        metadata={"missing": len(gone), "first_missing": "\n".join(gone[:_SHOWN]) or "none"},
    )


def maintain_tables_job() -> UnresolvedAssetJobDefinition:
    """Return the job that maintains tables: all of them, or those chosen."""
    return dg.define_asset_job(
        "maintain_tables",
        selection=[maintenance_key(table) for table in TABLES.values()],
        description="Merges small files of the tables, expires old snapshots, deletes what nothing names.",
    )


def maintenance_schedule(job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """Return the schedule: each hour a run for every table that holds something."""

    @dg.schedule(
        name="maintain_every_table_hourly",
        job=job,
        # Soon after the hour: where Flink writes Paimon, the state of the full hour is to be tagged while its
        # snapshot is there, which is for half an hour.
        cron_schedule="7 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=(
            "Maintains each table that holds something, in a run of its own. At "
            f"{ORPHANS_HOUR:02} UTC files that nothing names are looked for, too."
        ),
    )
    def maintain_every_table_hourly(
        context: dg.ScheduleEvaluationContext, lakehouse: Lakehouse
    ) -> list[dg.RunRequest] | dg.SkipReason:
        if not lakehouse.is_written:
            return lakehouse.no_data()
        at = context.scheduled_execution_time
        with lakehouse.iceberg() as iceberg, lakehouse.paimon() as paimon:
            stores: dict[str, IcebergStore | PaimonStore] = {"iceberg": iceberg, "paimon": paimon}
            written = [t for t in TABLES.values() if stores[t.store].snapshot_id(t) is not None]
        config = {"config": {"look_for_orphans": at.hour == ORPHANS_HOUR}}
        return [
            dg.RunRequest(
                run_key=f"{table.name}:{at.isoformat()}",
                asset_selection=[maintenance_key(table)],
                run_config={"ops": {maintenance_key(table).to_python_identifier(): config}},
                tags={CAUSE: "hourly maintenance"},
            )
            for table in written
        ]

    return maintain_every_table_hourly
