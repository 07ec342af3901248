"""Flink's batch jobs over the tables: candles of a product's days rebuilt, a Paimon table kept small.

Each function returns when its job has finished. A job left behind by a caller that died is cancelled first:
two of them at one partition would get in each other's way. So nobody else may call it for the same table and
product meanwhile.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from lakehouse.candles.rollup import WIDTH_US
from lakehouse.market.product import checked_product
from lakehouse.market.time import MINUTE_US
from lakehouse.stores.schemas import CANDLES_1M, Table
from streaming.engines.flink.errors import StatementError
from streaming.engines.flink.job_manager import JobManager, JobProgress
from streaming.engines.flink.statements import Name, Parameters, Rows, statements
from streaming.engines.flink.target import FlinkTarget

BATCH_SECONDS: Final = 1800.0
"""How long a job may take before it is cancelled."""

ORPHAN_AGE: Final = timedelta(days=3)
"""How long the streaming job may be down with a checkpoint whose files it has not committed."""

_NO_ID: Final = 0
"""In the place of an edge: ids begin at 1."""

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


def rebuild_days(
    target: FlinkTarget,
    product: str,
    edges: Mapping[date, Sequence[int]],
    *,
    snapshot_id: int,
    timeout_seconds: float = BATCH_SECONDS,
    on_progress: OnProgress = lambda _progress: None,
) -> str:
    """Replace days of a product's `candles_1m` by what their archived trades say, and return the job's id.

    The rows are those of `lakehouse.candles.rebuild.rebuild`, day by day. It is one job and one commit. A day
    without trades stays as it is; see `empty_days`.

    Args:
        target: whose tables.
        product: the product.
        edges: the UTC days, one at least, each with the ids right before and after it that are known to be
            other days' trades; see `lakehouse.stores.seals.known_edges`.
        snapshot_id: the snapshot of `trades` to read.
        timeout_seconds: how long the job may take.
        on_progress: called whenever the job has moved.

    Raises:
        InvalidProductError: the product is not one.
        EdgesError: more than two edges of a day.
        StatementError: Flink refused the SQL, as when the snapshot has expired.
        JobFailedError: the job failed; the candles are as before.
        FlinkTimeoutError: it took too long and was cancelled.
        FlinkUnavailableError: Flink went away; the job may go on, and calling again cancels it first.
    """
    job = _job(target, CANDLES_1M.name, product, edges)
    into: Parameters = {"namespace": Name(target.namespace)}
    made = [
        *_candles_of_days(target, product, edges, snapshot_id),
        *statements("rebuild_days", into),
    ]
    return _followed(target, job, made, timeout_seconds, on_progress)


def fill_days(
    target: FlinkTarget,
    product: str,
    days: Collection[date],
    *,
    timeout_seconds: float = BATCH_SECONDS,
    on_progress: OnProgress = lambda _progress: None,
) -> str:
    """Replace days of a product's `candles_1m` by what `exchange_candles` has, and return the job's id.

    The rows are those of `lakehouse.candles.of_exchange.of_exchange`, day by day. It is one job and one
    commit. A day that the exchange tells nothing of stays as it is; see `empty_days`.

    Args:
        target: whose tables.
        product: the product.
        days: the UTC days, one at least; of none of them a trade may be archived.
        timeout_seconds: how long the job may take.
        on_progress: called whenever the job has moved.

    Raises:
        InvalidProductError: the product is not one.
        StatementError: Flink refused the SQL.
        JobFailedError: the job failed; the candles are as before.
        FlinkTimeoutError: it took too long and was cancelled.
        FlinkUnavailableError: Flink went away; the job may go on, and calling again cancels it first.
    """
    parameters: Parameters = {
        "namespace": Name(target.namespace),
        "product": checked_product(product),
        "days": _rows(days),
    }
    made = statements("fill_days", parameters)
    return _followed(target, _job(target, CANDLES_1M.name, product, days), made, timeout_seconds, on_progress)


def roll_up_days(
    target: FlinkTarget,
    table: Table,
    product: str,
    days: Collection[date],
    *,
    timeout_seconds: float = BATCH_SECONDS,
    on_progress: OnProgress = lambda _progress: None,
) -> str:
    """Replace days of a product's hours or days by what their minutes say, and return the job's id.

    The rows are those of `lakehouse.candles.rollup.rolled_up`, day by day. It is one job and one commit. A
    day without minutes stays as it is; see `empty_days`.

    Args:
        target: whose tables.
        table: one of `lakehouse.candles.rollup.WIDTH_US`.
        product: the product.
        days: the UTC days, one at least.
        timeout_seconds: how long the job may take.
        on_progress: called whenever the job has moved.

    Raises:
        InvalidProductError: the product is not one.
        StatementError: Flink refused the SQL.
        JobFailedError: the job failed; the candles are as before.
        FlinkTimeoutError: it took too long and was cancelled.
        FlinkUnavailableError: Flink went away; the job may go on, and calling again cancels it first.
    """
    parameters: Parameters = {
        "namespace": Name(target.namespace),
        "product": checked_product(product),
        "days": _rows(days),
        "table": Name(table.name),
        "minutes": WIDTH_US[table.name] // MINUTE_US,
    }
    made = statements("roll_up_days", parameters)
    return _followed(target, _job(target, table.name, product, days), made, timeout_seconds, on_progress)


def empty_days(
    target: FlinkTarget,
    table: Table,
    product: str,
    days: Collection[date],
    *,
    timeout_seconds: float = BATCH_SECONDS,
    on_progress: OnProgress = lambda _progress: None,
) -> str:
    """Take all candles out of days of a product, and return the job's id.

    Paimon overwrites many partitions at once only where rows go into each. So this is a commit for each day,
    all of them in one job, which gets slow above some dozens.

    Args:
        target: whose tables.
        table: a table of candles.
        product: the product.
        days: the UTC days, one at least.
        timeout_seconds: how long the job may take.
        on_progress: called whenever the job has moved.

    Raises:
        InvalidProductError: the product is not one.
        StatementError: Flink refused the SQL.
        JobFailedError: the job failed; a day is empty or as before.
        FlinkTimeoutError: it took too long and was cancelled.
        FlinkUnavailableError: Flink went away; the job may go on, and calling again cancels it first.
    """
    inserts = [
        statement
        for day in days
        for statement in statements(
            "empty_day", {**_partition(target, product, day), "table": Name(table.name)}
        )
    ]
    made = [f"EXECUTE STATEMENT SET BEGIN {'; '.join(inserts)}; END"]
    return _followed(target, _job(target, table.name, product, days), made, timeout_seconds, on_progress)


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
    """Put what `rebuild_days` makes of a product's day into `replay_candles_1m`, and return the job's id.

    A day without trades gets none, and the candles of other replays stay; nobody else may write to the table
    meanwhile. For the arguments and errors see `rebuild_days`.
    """
    into: Parameters = {
        **_partition(target, product, day),
        "replay_id": replay_id,
        "snapshot_id": snapshot_id,
        "gone": replay_id,
    }
    made = [
        *_candles_of_days(target, product, {day: edges}, snapshot_id),
        *statements("replay_day", into),
    ]
    job = _job(target, f"replay {replay_id}", product, [day])
    return _followed(target, job, made, timeout_seconds, on_progress)


def drop_replays(
    target: FlinkTarget,
    product: str,
    day: date,
    replay_ids: Collection[str],
    *,
    timeout_seconds: float = BATCH_SECONDS,
) -> str:
    """Take the candles of replays out of a product's day, and return the job's id; see `replay_day`."""
    gone = {**_partition(target, product, day), "gone": " ".join(sorted(replay_ids))}
    job = _job(target, "without replays", product, [day])
    return _followed(target, job, statements("drop_replays", gone), timeout_seconds, lambda _progress: None)


@dataclass(frozen=True)
class _Job:
    """A batch job's name: what it works on, which no two jobs may at a time, and with which days."""

    work: str
    days: str

    @property
    def name(self) -> str:
        return f"{self.work} {self.days}"


def _job(target: FlinkTarget, what: str, product: str, days: Collection[date]) -> _Job:
    span = f"{min(days)} to {max(days)}" if len(days) > 1 else f"{min(days)}"
    return _Job(f"lakehouse {target.shared_name} {what} of {checked_product(product)}", span)


def _partition(target: FlinkTarget, product: str, day: date) -> Parameters:
    return {
        "namespace": Name(target.namespace),
        "product": checked_product(product),
        "day": day.isoformat(),
    }


def _rows(days: Iterable[date]) -> Rows:
    return Rows(tuple((day,) for day in days))


def _candles_of_days(
    target: FlinkTarget, product: str, edges: Mapping[date, Sequence[int]], snapshot_id: int
) -> list[str]:
    """Return the statements that make the view `candles`."""
    for day, known in edges.items():
        if len(known) > 2:
            raise EdgesError(f"a day has two edges, and {len(known)} ids were given for {day}")
    parameters: Parameters = {
        "namespace": Name(target.namespace),
        "product": checked_product(product),
        "days": _rows(edges),
        "edges": Rows(tuple((day, edge) for day, known in edges.items() for edge in known or (_NO_ID,))),
        "snapshot_id": snapshot_id,
    }
    return statements("candles_of_days", parameters)


def _followed(
    target: FlinkTarget, job: _Job, made: list[str], timeout_seconds: float, on_progress: OnProgress
) -> str:
    """Run statements of which the last submits a job, wait for it, and return its id."""
    with target.job_manager() as manager:
        _cancel_left_behind(manager, job.work)
        with target.session() as session:
            all_of_it = [*statements("batch", {"job_name": job.name}), *made]
            job_id = session.run_all(all_of_it, timeout_seconds=_STATEMENT_SECONDS).job_id
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
                "table": qualified,
                "idle": f"{round(idle.total_seconds())} s",
            }
            procedure = [*statements("batch", {"job_name": name}), *statements("compact", compaction)]
            made = session.run_all(procedure, timeout_seconds=_STATEMENT_SECONDS)
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


def _cancel_left_behind(manager: JobManager, work: str) -> None:
    for job in manager.jobs(lambda name: name == work or name.startswith(f"{work} ")):
        if job.is_live:
            manager.cancel(job.id, timeout_seconds=BATCH_SECONDS)
