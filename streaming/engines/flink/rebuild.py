"""Rebuilding a product's days of candles where Flink writes them: one batch job for all days of a kind."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import date
from typing import Final

import structlog

from lakehouse.home import Home
from lakehouse.settings import Settings
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, EXCHANGE_CANDLES, TRADES, Table
from lakehouse.stores.seals import edges_of_days
from streaming.engines.flink import batch
from streaming.engines.flink.batch import OnProgress
from streaming.engines.flink.job_manager import JobProgress
from streaming.engines.flink.target import FlinkTarget, flink_target
from streaming.engines.rebuilding import Rebuilt, rows_by_day

EMPTIED_TOGETHER: Final = 20
"""Days that a job empties: each has a writer of its own in it."""

_Run = Callable[[Sequence[date], OnProgress], str]
"""Runs the batch job that makes days, one at least, and returns its id."""

_log = structlog.get_logger()


def rebuild_days(
    settings: Settings,
    home: Home,
    archive: IcebergStore,
    candles: PaimonStore,
    product: str,
    days: Sequence[date],
    snapshot_id: int | None,
) -> dict[date, Rebuilt]:
    """Make days of candles those of their archived trades, or the exchange's.

    See `streaming.engines.rebuilding.RebuildDays`.

    Raises:
        FlinkError: see `batch.rebuild_days`.
    """
    snapshot_id = archive.snapshot_id(TRADES) if snapshot_id is None else snapshot_id
    if not days:
        return {}
    target = flink_target(settings, home)

    def rebuild(some: Sequence[date], tell: OnProgress) -> str:
        assert snapshot_id is not None  # there are trades
        edges = edges_of_days(archive, product, some)
        return batch.rebuild_days(target, product, edges, snapshot_id=snapshot_id, on_progress=tell)

    def fill(some: Sequence[date], tell: OnProgress) -> str:
        return batch.fill_days(target, product, some, on_progress=tell)

    kept = nullcontext() if snapshot_id is None else _kept(archive, snapshot_id, f"candles.{product}")
    with candles.lock(CANDLES_1M), kept:
        there = [] if snapshot_id is None else archive.partitions(TRADES, snapshot_id=snapshot_id)
        traded = {stats.day for stats in there if stats.product == product and stats.rows}
        fetched = archive.partitions(EXCHANGE_CANDLES)
        told = {stats.day for stats in fetched if stats.product == product} - traded
        works = [(traded, rebuild), (told, fill)]
        return _rebuilt(target, candles, CANDLES_1M, product, days, works)


def roll_up_days(
    settings: Settings,
    home: Home,
    candles: PaimonStore,
    table: Table,
    product: str,
    days: Sequence[date],
    _snapshot_id: int | None,
) -> dict[date, Rebuilt]:
    """Make days of longer candles those of their minutes; see `streaming.engines.rebuilding.RebuildDays`.

    Raises:
        FlinkError: see `batch.roll_up_days`.
    """
    target = flink_target(settings, home)

    def run(some: Sequence[date], tell: OnProgress) -> str:
        return batch.roll_up_days(target, table, product, some, on_progress=tell)

    with candles.lock(table):
        minutes = rows_by_day(candles, CANDLES_1M, product, days, columns=("day", "start"))
        traded = {day for day, rows in minutes.items() if rows.num_rows}
        return _rebuilt(target, candles, table, product, days, [(traded, run)])


def _rebuilt(
    target: FlinkTarget,
    candles: PaimonStore,
    table: Table,
    product: str,
    days: Sequence[date],
    works: Sequence[tuple[Collection[date], _Run]],
) -> dict[date, Rebuilt]:
    """Rebuild the days that there is something of, empty the others, and compare them before and after."""

    def tell(progress: JobProgress) -> None:
        _log.info(
            "candles are being rebuilt by Flink",
            table=table.name,
            product=product,
            first_day=min(days).isoformat(),
            last_day=max(days).isoformat(),
            state=progress.state,
            tasks=f"{progress.ended_tasks} of {progress.tasks}",
            rows=progress.rows_read,
        )

    before = rows_by_day(candles, table, product, days)
    jobs: dict[date, str] = {}
    for made_so, run in works:
        if some := [day for day in days if day in made_so]:
            jobs |= dict.fromkeys(some, run(some, tell))
    outlived = [day for day in days if day not in jobs and before[day].num_rows]
    for start in range(0, len(outlived), EMPTIED_TOGETHER):
        some = outlived[start : start + EMPTIED_TOGETHER]
        jobs |= dict.fromkeys(some, batch.empty_days(target, table, product, some, on_progress=tell))
    after = rows_by_day(candles, table, product, days)
    return {day: Rebuilt(not after[day].equals(before[day]), jobs.get(day)) for day in days}


@contextmanager
def _kept(archive: IcebergStore, snapshot_id: int, tag: str) -> Iterator[None]:
    """Keep a snapshot for the block: Flink's commits push it out of those that stay within minutes.

    The tag of a process that was killed is taken over by the next rebuild of the same product.
    """
    archive.tag(TRADES, tag, snapshot_id)
    try:
        yield
    finally:
        archive.untag(TRADES, tag)
