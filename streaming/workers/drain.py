"""`lakehouse stream --drain`: the streaming side in one process, until a recording is in the tables.

The feed runs on the main thread's event loop, each stage in a thread with a log of its own; they are the
same stages that the workers run, so a drain that is killed goes on where it stopped.
"""

import asyncio
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import structlog
from rich.console import Console
from rich.status import Status

from lakehouse import logs
from lakehouse.home import Home, HomeError, LastRun
from lakehouse.settings import Settings, SettingsError, load_settings
from lakehouse.stores import schemas, sql
from lakehouse.stores.hot_store import HotStoreError
from lakehouse.stores.iceberg import IcebergStore, IcebergStoreError
from lakehouse.stores.lock import AlreadyRunningError
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.paimon_files import PaimonStoreError
from streaming.engines.flink.errors import FlinkError
from streaming.engines.overdue import rebuild_overdue
from streaming.engines.rebuilding import rebuilder
from streaming.exchanges.recording import RecordingError
from streaming.feed.handler import FeedError
from streaming.feed.intake import FeedTotals
from streaming.spine.contract import Partition, Spine, SpineError
from streaming.spine.opening import open_spine
from streaming.spine.topics import BOOK, QUOTES, TRADES
from streaming.workers.feed import run_feed
from streaming.workers.preparation import PreparationError, prepare
from streaming.workers.roster import StageName, readers
from streaming.workers.stages import StageError, opened

COUNTED = {
    "trades": "SELECT count(*) FROM trades",
    "quotes": "SELECT count(*) FROM quotes",
    "book": "SELECT count(*) FROM book",
    "candles": "SELECT count(*) FROM candles_1m",
    "gaps": "SELECT count(*) FROM gaps WHERE status = 'found'",
}
"""How each figure of the summary is counted in the tables."""

_IDLE_SECONDS = 0.05
_PATIENCE_SECONDS = 120.0
"""How long nothing may come into the tables while Flink is waited for."""


class DrainError(Exception):
    """There is nothing to drain, or it was stopped before the end; the text says which."""


def drain(settings: Settings) -> dict[str, int | float]:
    """Take a recording into the tables and return the summary.

    Raises:
        DrainError: the feed has no end, or a signal came before it.
        Exception: whatever the feed or a stage could not get over; starting again goes on from there.
    """
    if settings.recording is None:
        raise DrainError(
            f"the feed {settings.feed} has no end to drain to: choose a recording, --feed recording:PATH"
        )
    home = prepare(settings)
    started = time.perf_counter()
    fed = threading.Event()
    with (
        Console(stderr=True).status("reading the recording …") as display,
        ThreadPoolExecutor() as pool,
    ):
        stages = [pool.submit(_run_stage, name, settings, home, fed) for name in readers(settings)]
        try:
            totals = asyncio.run(_feed(settings, home, stages, display))
        finally:
            fed.set()
        display.update("committing what was read …")
        for stage in stages:
            stage.result()
        if settings.engine_kind == "flink":
            _settle(settings, home, display)
        with IcebergStore.open(home) as archive, PaimonStore.open(home) as candles:
            # An older recording than one before: no seal comes for it.
            rebuild_overdue(archive, candles, rebuilder(settings, home, archive, candles))
            traded = sorted({str(partition.product) for partition in archive.partitions(schemas.TRADES)})
    # Only now it is known which products it holds; Dagster's partitions are made of them.
    home.remember(LastRun(settings.feed, home.namespace, settings.products or tuple(traded)))
    return {
        "received": totals.received,
        "accepted": totals.accepted,
        "duplicates": totals.duplicates,
        "quarantined": totals.quarantined,
        **_counted(home),
        "seconds": round(time.perf_counter() - started, 3),
    }


async def _feed(settings: Settings, home: Home, stages: list[Future[None]], display: Status) -> FeedTotals:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    stopped_by: list[str] = []

    def on_signal(name: str) -> None:
        stopped_by.append(name)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number.name)
    with open_spine(settings, home) as spine:
        feed = asyncio.create_task(run_feed(settings, home, spine, stop))
        while not feed.done():
            await asyncio.wait([feed], timeout=0.5)
            messages = sum(spine.end(partition) for partition in _market_partitions(spine))
            display.update(f"{messages:,} messages in the log …")
            if any(stage.done() for stage in stages):
                stop.set()  # it failed, or it would still be waiting for the feed
        totals = feed.result()
    if stopped_by:
        raise DrainError(f"stopped by {stopped_by[0]} before the end; the same command goes on from here")
    return totals


def _market_partitions(spine: Spine) -> Iterator[Partition]:
    for topic in (TRADES, QUOTES, BOOK):
        for number in range(spine.partitions):
            yield Partition(topic, number)


def _run_stage(name: StageName, settings: Settings, home: Home, fed: threading.Event) -> None:
    with (
        open_spine(settings, home) as spine,
        opened(name, spine, settings, home) as stage,
    ):
        while True:
            last = fed.is_set()  # asked before the step, which then sees everything that was fed
            result = stage.step()
            if last and not result.behind:
                return
            if not result.behind:
                fed.wait(_IDLE_SECONDS if name == "hot" else settings.commit_interval_ms / 1000)


def _settle(settings: Settings, home: Home, display: Status) -> None:
    """Have Flink's job run, and wait until it has brought everything into the tables."""
    # Only this engine needs them.
    from streaming.engines.archived_offsets import ArchivedOffsets
    from streaming.engines.flink.settling import settle
    from streaming.engines.flink.streaming_job import prepare as prepare_tables
    from streaming.engines.flink.target import flink_target
    from streaming.workers import flink_job

    def on_progress(lacking: int) -> None:
        display.update(f"{lacking:,} messages not in the tables yet …")

    prepare_tables(settings, home)
    with (
        flink_job.opened(settings, home) as keeper,
        IcebergStore.open(home) as archive,
        open_spine(settings, home) as spine,
        flink_target(settings, home).job_manager() as manager,
    ):
        settle(
            ArchivedOffsets(archive, spine),
            spine,
            manager,
            keeper.step().job.id,
            patience_seconds=_PATIENCE_SECONDS,
            on_progress=on_progress,
        )


def _counted(home: Home) -> dict[str, int]:
    with sql.connect(home) as connection:
        found = {}
        for name, question in COUNTED.items():
            row = connection.execute(question).fetchone()
            assert row is not None
            found[name] = int(row[0])
    return found


def main() -> int:
    """Run `lakehouse stream --drain`; returns the exit code."""
    logs.configure("drain")
    try:
        summary = drain(load_settings())
    except (
        *(SettingsError, HomeError, PreparationError, DrainError, AlreadyRunningError),
        *(RecordingError, FeedError, SpineError, StageError),
        *(IcebergStoreError, PaimonStoreError, HotStoreError, FlinkError),
    ) as error:
        print(f"lakehouse stream: {error}", file=sys.stderr)
        return 1
    structlog.get_logger().info("drained", **summary)
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
