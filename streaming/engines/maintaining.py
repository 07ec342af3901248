"""Keeping one table small, whichever engine writes it: merging, expiry, a look for orphans.

The stages merge and expire what they write themselves as they go, every few commits. This does what they
leave: tables without a stage, the last few small files of a partition, and files that a killed process left.
"""

import time
from dataclasses import dataclass

import structlog

from lakehouse.home import Home
from lakehouse.settings import Settings
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import Table
from lakehouse.stores.table_size import TableSize, iceberg_size, paimon_size
from lakehouse.stores.versions import LADDER, plan_expiry

_FAN_IN = 2
_log = structlog.get_logger()


@dataclass(frozen=True)
class Maintained:
    """What a maintenance did to a table.

    `orphans` are files that nothing had named, None where nobody looked for them; `waiting` files are named
    by nothing and within their grace period. `job_id` is the batch job of Flink that merged files.
    """

    before: TableSize
    after: TableSize
    merged_files: int
    expired_snapshots: int
    deleted_files: int
    orphans: int | None
    waiting: int | None
    seconds: float
    job_id: str | None = None


@dataclass(frozen=True)
class _Done:
    merged: int
    snapshots: int
    deleted: int
    orphans: int | None
    waiting: int | None
    job_id: str | None = None


def maintain(
    settings: Settings,
    home: Home,
    iceberg: IcebergStore,
    paimon: PaimonStore,
    table: Table,
    *,
    look_for_orphans: bool,
) -> Maintained:
    """Keep a table small; writers and readers go on meanwhile.

    Args:
        settings: which engine writes the tables of Paimon.
        home: whose table.
        iceberg: the namespace's Iceberg tables.
        paimon: its Paimon tables.
        table: what to maintain.
        look_for_orphans: look at every file of the table, which takes long where it is large.

    Raises:
        HomeError: another engine writes the tables.
        FlinkUnavailableError: Flink doesn't answer; try again.
        FlinkError: Flink failed; the table holds what it held.
    """
    started = time.monotonic()
    if table.store == "iceberg":
        before = iceberg_size(iceberg, table)
        done = _here(iceberg, table, look_for_orphans)
        after = iceberg_size(iceberg, table)
    else:
        home.claim(settings.engine_kind)
        before = paimon_size(paimon, table)
        if settings.engine_kind == "flink":
            done = _by_flink(settings, home, paimon, table, look_for_orphans)
        else:
            done = _here(paimon, table, look_for_orphans)
        after = paimon_size(paimon, table)
    return Maintained(
        before,
        after,
        done.merged,
        done.snapshots,
        done.deleted,
        done.orphans,
        done.waiting,
        time.monotonic() - started,
        done.job_id,
    )


def _here(store: IcebergStore | PaimonStore, table: Table, look_for_orphans: bool) -> _Done:
    merged = store.compact(table, fan_in=_FAN_IN)
    expired = store.expire(table)
    if not look_for_orphans:
        return _Done(merged.merged, expired.snapshots, expired.deleted_files, None, expired.waiting)
    swept = store.sweep(table)
    return _Done(merged.merged, expired.snapshots, expired.deleted_files, swept.deleted, swept.waiting)


def _by_flink(
    settings: Settings, home: Home, paimon: PaimonStore, table: Table, look_for_orphans: bool
) -> _Done:
    # Each engine brings libraries that the other does without.
    from streaming.engines.flink import batch
    from streaming.engines.flink.job_manager import JobProgress
    from streaming.engines.flink.target import flink_target

    def tell(progress: JobProgress) -> None:
        _log.info("a table is being compacted by Flink", table=table.name, state=progress.state)

    # A procedure for each minute would be too much: hours and days.
    plan = plan_expiry(
        paimon.versions(table), paimon.tags(table), (), time.time_ns() // 1_000_000, LADDER[1:]
    )
    target = flink_target(settings, home)
    batch.tag(target, table, plan.tag, plan.untag)
    result = batch.compact(target, table, on_progress=tell)
    orphans = batch.remove_orphans(target, table) if look_for_orphans else None
    return _Done(0, result.snapshots, 0, orphans, None, result.job_id)
