"""Flink's batch jobs over the tables: candles of a product's day rebuilt, a Paimon table kept small.

Each function returns when its job has finished. A job left behind by a caller that died is cancelled first:
two of them at one partition would get in each other's way.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from lakehouse.candles.rollup import WIDTH_US
from lakehouse.market.product import checked_product
from lakehouse.market.time import MINUTE_US
from lakehouse.stores.schemas import Table
from streaming.engines.flink.errors import StatementError
from streaming.engines.flink.job_manager import JobManager, JobProgress
from streaming.engines.flink.statements import Name, Parameters, statements
from streaming.engines.flink.target import FlinkTarget

BATCH_SECONDS: Final = 1800.0
"""How long a job may take before it is cancelled."""

ORPHAN_AGE: Final = timedelta(days=3)
"""How long the streaming job may be down with a checkpoint whose files it has not committed."""

_STATEMENT_SECONDS: Final = 180.0
_JOB: Final = re.compile(r"JobID=([0-9a-f]{32})")

OnProgress = Callable[[JobProgress], None]


class EdgesError(ValueError):
    """More ids beside a day were given than it has edges."""


@dataclass(frozen=True)
class CompactionResult:
    """What a compaction did: the job that merged files (None where none were due), snapshots expired."""

    job_id: str | None
    snapshots: int


def rebuild_day(
    target: FlinkTarget,
    product: str,
    day: date,
    *,
    snapshot_id: int,
    edges: Sequence[int] = (),
    timeout_seconds: float = BATCH_SECONDS,
    on_progress: OnProgress = lambda _progress: None,
) -> str:
    """Replace a product's day of `candles_1m` by what its archived trades say, and return the job's id.

    The rows are those of `lakehouse.candles.rebuild.rebuild`. A day without trades becomes empty.

    Args:
        target: whose tables.
        product: the product.
        day: the UTC day.
        snapshot_id: the snapshot of `trades` to read.
        edges: the ids right before and after the day that are known to be other days' trades; see
            `lakehouse.stores.seals.known_edges`.
        timeout_seconds: how long the job may take.
        on_progress: called whenever the job has moved.

    Raises:
        InvalidProductError: the product is not one.
        EdgesError: more than two edges.
        StatementError: Flink refused the SQL, as when the snapshot has expired.
        JobFailedError: the job failed; the candles are as before.
        FlinkTimeoutError: it took too long and was cancelled.
        FlinkUnavailableError: Flink went away; the job may go on, and calling again cancels it first.
    """
    of_day = _candles_of_day(target, "candles", product, day, snapshot_id, edges)
    into = _partition(target, product, day)
    made = [*statements("candles_of_day", of_day), *statements("rebuild_day", into)]
    return _followed(target, str(of_day["job_name"]), made, timeout_seconds, on_progress)


def roll_up_day(
    target: FlinkTarget,
    table: Table,
    product: str,
    day: date,
    *,
    timeout_seconds: float = BATCH_SECONDS,
    on_progress: OnProgress = lambda _progress: None,
) -> str:
    """Replace a product's day of hours or days by what its minutes say, and return the job's id.

    The rows are those of `lakehouse.candles.rollup.rolled_up`. A day without minutes becomes empty.

    Args:
        target: whose tables.
        table: one of `lakehouse.candles.rollup.WIDTH_US`.
        product: the product.
        day: the UTC day.
        timeout_seconds: how long the job may take.
        on_progress: called whenever the job has moved.

    Raises:
        InvalidProductError: the product is not one.
        StatementError: Flink refused the SQL.
        JobFailedError: the job failed; the candles are as before.
        FlinkTimeoutError: it took too long and was cancelled.
        FlinkUnavailableError: Flink went away; the job may go on, and calling again cancels it first.
    """
    name = f"lakehouse {target.shared_name} {table.name} of {checked_product(product)} {day.isoformat()}"
    parameters: Parameters = {
        **_partition(target, product, day),
        "job_name": name,
        "table": Name(table.name),
        "minutes": WIDTH_US[table.name] // MINUTE_US,
    }
    made = statements("roll_up_day", parameters)
    return _followed(target, name, made, timeout_seconds, on_progress)


def replay_day(
    target: FlinkTarget,
    product: str,
    day: date,
    *,
    replay_id: str,
    snapshot_id: int,
    edges: Sequence[int] = (),
    timeout_seconds: float = BATCH_SECONDS,
    on_progress: OnProgress = lambda _progress: None,
) -> str:
    """Put what `rebuild_day` makes of a product's day into `replay_candles_1m`, and return the job's id.

    The candles of other replays stay; nobody else may write to the table meanwhile. For the arguments and
    errors see `rebuild_day`.
    """
    of_day = _candles_of_day(target, f"replay {replay_id}", product, day, snapshot_id, edges)
    into: Parameters = {
        **_partition(target, product, day),
        "replay_id": replay_id,
        "snapshot_id": snapshot_id,
        "gone": replay_id,
    }
    made = [*statements("candles_of_day", of_day), *statements("replay_day", into)]
    return _followed(target, str(of_day["job_name"]), made, timeout_seconds, on_progress)


def drop_replays(
    target: FlinkTarget,
    product: str,
    day: date,
    replay_ids: Collection[str],
    *,
    timeout_seconds: float = BATCH_SECONDS,
) -> str:
    """Take the candles of replays out of a product's day, and return the job's id; see `replay_day`."""
    name = f"lakehouse {target.shared_name} without replays {checked_product(product)} {day.isoformat()}"
    gone = {**_partition(target, product, day), "job_name": name, "gone": " ".join(sorted(replay_ids))}
    made = statements("drop_replays", gone)
    return _followed(target, name, made, timeout_seconds, lambda _progress: None)


def _partition(target: FlinkTarget, product: str, day: date) -> Parameters:
    return {
        "namespace": Name(target.namespace),
        "product": checked_product(product),
        "day": day.isoformat(),
    }


def _candles_of_day(
    target: FlinkTarget, what: str, product: str, day: date, snapshot_id: int, edges: Sequence[int]
) -> Parameters:
    if len(edges) > 2:
        raise EdgesError(f"a day has two edges, and {len(edges)} ids were given")
    edge, other_edge = ([str(edge) for edge in edges] + ["", ""])[:2]
    return {
        **_partition(target, product, day),
        "job_name": f"lakehouse {target.shared_name} {what} of {product} {day.isoformat()}",
        "snapshot_id": snapshot_id,
        "edge": edge,
        "other_edge": other_edge,
    }


def _followed(
    target: FlinkTarget, name: str, made: list[str], timeout_seconds: float, on_progress: OnProgress
) -> str:
    """Run statements of which the last is an INSERT, wait for its job, and return the job's id."""
    with target.job_manager() as manager:
        _cancel_left_behind(manager, name)
        with target.session() as session:
            job_id = session.run_all(made, timeout_seconds=_STATEMENT_SECONDS).job_id
        if job_id is None:
            raise StatementError("Flink took the INSERT and named no job: is this gateway of version 1.20?")
        manager.follow(job_id, timeout_seconds=timeout_seconds, on_progress=on_progress)
    return job_id


def compact(
    target: FlinkTarget,
    table: Table,
    *,
    idle: timedelta = timedelta(hours=2),
    keep_snapshots: int = 16,
    older_than: timedelta = timedelta(minutes=10),
    timeout_seconds: float = BATCH_SECONDS,
    on_progress: OnProgress = lambda _progress: None,
) -> CompactionResult:
    """Write each idle partition of a Paimon table into one file, and expire old snapshots.

    The streaming job goes on beside it: it merges the files of partitions that it writes itself.

    Args:
        target: whose tables.
        table: a table in Paimon.
        idle: how long a partition must not have been written; shorter than the streaming job may need to end
            a merge of its own, the two would collide and one of them start anew.
        keep_snapshots: newest snapshots that stay.
        older_than: snapshots of this age expire.
        timeout_seconds: how long the job may take.
        on_progress: called whenever the job has moved.

    Raises:
        StatementError: Flink refused.
        JobFailedError: the job failed; the table is as before.
        FlinkTimeoutError: it took too long and was cancelled.
        FlinkUnavailableError: Flink went away; the job may go on, and calling again cancels it first.
    """
    name = f"lakehouse {target.shared_name} compaction of {table.name}"
    qualified = f"{target.namespace}.{table.name}"
    with target.job_manager() as manager:
        _cancel_left_behind(manager, name)
        with target.session() as session:
            compaction: Parameters = {
                "job_name": name,
                "table": qualified,
                "idle": f"{round(idle.total_seconds())} s",
            }
            made = session.run_all(statements("compact", compaction), timeout_seconds=_STATEMENT_SECONDS)
            named = _JOB.search(str(made.rows))
            if named is not None:
                manager.follow(named.group(1), timeout_seconds=timeout_seconds, on_progress=on_progress)
            expiry: Parameters = {
                "table": qualified,
                "keep": keep_snapshots,
                "older_than": (datetime.now(UTC) - older_than).strftime("%Y-%m-%d %H:%M:%S"),
            }
            expired = session.run_all(statements("expire", expiry), timeout_seconds=_STATEMENT_SECONDS)
    return CompactionResult(named.group(1) if named else None, int(str(expired.rows[0][0])))


def tag(target: FlinkTarget, table: Table, new: Mapping[str, int], outlived: Collection[str]) -> None:
    """Set tags of a Paimon table, by name with their snapshots, and remove others.

    Raises:
        StatementError: Flink refused, as when a snapshot has expired.
        FlinkUnavailableError: Flink doesn't answer; some may be set.
    """
    if not new and not outlived:
        return
    qualified = f"{target.namespace}.{table.name}"
    with target.session() as session:
        for name, snapshot_id in new.items():
            set_one: Parameters = {"table": qualified, "tag": name, "snapshot": snapshot_id}
            session.run_all(statements("tag", set_one), timeout_seconds=_STATEMENT_SECONDS)
        for name in outlived:
            removal = statements("untag", {"table": qualified, "tag": name})
            session.run_all(removal, timeout_seconds=_STATEMENT_SECONDS)


def remove_orphans(target: FlinkTarget, table: Table, *, older_than: timedelta = ORPHAN_AGE) -> int:
    """Delete the files of a Paimon table that no snapshot and no tag names, and return how many.

    Args:
        target: whose tables.
        table: a table in Paimon.
        older_than: only files that were written so long ago: younger ones may wait for their commit.

    Raises:
        StatementError: Flink refused.
        FlinkTimeoutError: it took too long.
        FlinkUnavailableError: Flink doesn't answer.
    """
    parameters: Parameters = {
        "table": f"{target.namespace}.{table.name}",
        "older_than": (datetime.now(UTC) - older_than).strftime("%Y-%m-%d %H:%M:%S"),
    }
    with target.session() as session:
        removed = session.run_all(statements("orphans", parameters), timeout_seconds=BATCH_SECONDS)
    return int(str(removed.rows[0][0]))


def _cancel_left_behind(manager: JobManager, name: str) -> None:
    for job in manager.jobs(lambda one: one == name):
        if job.is_live:
            manager.cancel(job.id, timeout_seconds=BATCH_SECONDS)
