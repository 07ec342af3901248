"""Rebuilding a product's days of candles where Flink writes them: a batch job for each day."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import partial

import structlog

from lakehouse.home import Home
from lakehouse.settings import Settings
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, TRADES, Table
from lakehouse.stores.seals import known_edges
from streaming.engines.flink import batch
from streaming.engines.flink.batch import OnProgress
from streaming.engines.flink.job_manager import JobProgress
from streaming.engines.flink.target import flink_target
from streaming.engines.rebuilding import Rebuilt

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
    """Make days of candles those of their archived trades; see `streaming.engines.rebuilding.RebuildDays`.

    Raises:
        FlinkError: see `batch.rebuild_day`.
    """
    return {day: _rebuild_day(settings, home, archive, candles, product, day, snapshot_id) for day in days}


def _rebuild_day(
    settings: Settings,
    home: Home,
    archive: IcebergStore,
    candles: PaimonStore,
    product: str,
    day: date,
    snapshot_id: int | None,
) -> Rebuilt:
    snapshot_id = archive.snapshot_id(TRADES) if snapshot_id is None else snapshot_id
    if snapshot_id is None:
        return Rebuilt(changed=False)

    def run(tell: OnProgress) -> str:
        with _kept(archive, snapshot_id, f"candles.{product}.{day.isoformat()}"):
            return batch.rebuild_day(
                flink_target(settings, home),
                product,
                day,
                snapshot_id=snapshot_id,
                edges=known_edges(archive, product, day),
                on_progress=tell,
            )

    return _compared(candles, CANDLES_1M, product, day, run)


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
        FlinkError: see `batch.roll_up_day`.
    """
    target = flink_target(settings, home)

    def rolled_up(day: date) -> Rebuilt:
        run = partial(batch.roll_up_day, target, table, product, day)
        return _compared(candles, table, product, day, lambda tell: run(on_progress=tell))

    return {day: rolled_up(day) for day in days}


def _compared(
    candles: PaimonStore, table: Table, product: str, day: date, run: Callable[[OnProgress], str]
) -> Rebuilt:
    """Run a batch job, tell how it goes on, and compare what the day holds before and after it."""

    def tell(progress: JobProgress) -> None:
        _log.info(
            "candles are being rebuilt by Flink",
            table=table.name,
            product=product,
            day=day.isoformat(),
            state=progress.state,
            tasks=f"{progress.ended_tasks} of {progress.tasks}",
            rows=progress.rows_read,
        )

    before = candles.scan(table, product=product, day=day).sort_by("start")
    job_id = run(tell)
    after = candles.scan(table, product=product, day=day).sort_by("start")
    return Rebuilt(not after.equals(before), job_id)


@contextmanager
def _kept(archive: IcebergStore, snapshot_id: int, tag: str) -> Iterator[None]:
    """Keep a snapshot for the block: Flink's commits push it out of those that stay within minutes.

    The tag of a process that was killed is taken over by the next rebuild of the same day.
    """
    archive.tag(TRADES, tag, snapshot_id)
    try:
        yield
    finally:
        archive.untag(TRADES, tag)
