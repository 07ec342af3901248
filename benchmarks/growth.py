"""What a commit and a read cost after five thousand commits, beside the first hundred.

The real stages step over small batches, with all the maintenance they do, and the hourly maintenance of
Dagster comes when it would. As many snapshots are tagged as the ladder of `lakehouse.stores.versions` ever
keeps: that they lie close together here makes them pin more small files than they would. One pair of
tables grows to 4,900 commits; then the next hundred take turns with the first hundred of a new pair, so that
whatever else the machine does slows both alike.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.prepared_trades import publish, trade_records
from lakehouse.home import Home
from lakehouse.market.time import DAY_US, SECOND_US, now_us
from lakehouse.settings import USD_PRODUCTS, load_settings
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M
from lakehouse.stores.schemas import TRADES as TRADES_TABLE
from lakehouse.stores.table_size import TableSize, iceberg_size, paimon_size
from lakehouse.stores.versions import LADDER
from streaming.engines.embedded.archive import ArchiveStage
from streaming.engines.embedded.candles import CandlesStage, live
from streaming.engines.embedded.stage import Stage
from streaming.engines.maintaining import maintain
from streaming.spine.sqlite import SqliteSpine

COMMITS = 5_000
COMPARED = 100
READS = 48
"""Reads follow each of the last commits, whole rounds of compaction: none is caught at its best."""

TRADES = 120
STEP_US = 2 * SECOND_US // TRADES
"""A commit holds two seconds of 60 trades a second, so five thousand are 2 h 47 min."""

COMMITS_AN_HOUR = 1_800
RUNGS = sum(rung.span_ms // rung.every_ms for rung in LADDER)

PRODUCT = "BTC-USD"


class _Tables:
    """A log, the two stages on it and their tables; each commit goes on where the last one ended."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._home = home = Home(folder, "simulated").create()
        self._settings = load_settings(home=folder)
        self._spine = stack.enter_context(SqliteSpine.open(home.spine))
        self.archive = stack.enter_context(IcebergStore.open(home))
        self.candles = stack.enter_context(PaimonStore.open(home))
        self._archiving = ArchiveStage(self._spine, self.archive)
        self._counting = CandlesStage(self._spine, self.candles, live(10))
        self._published = 0
        self._start_us = now_us() // DAY_US * DAY_US
        self.appending: list[float] = []
        self.upserting: list[float] = []
        self.scanning: list[float] = []
        self.looking_up: list[float] = []

    def commit(self) -> None:
        """Publish a batch, and take the time of both stages."""
        trades = trade_records(TRADES, start_us=self._start_us, step_us=STEP_US, first=self._published)
        publish(self._spine, trades, at_once=TRADES)
        self._published += TRADES
        self.appending.append(_seconds(lambda: _step(self._archiving)))
        self.upserting.append(_seconds(lambda: _step(self._counting)))

    def tag(self, name: str) -> None:
        """Keep the newest snapshots."""
        self.archive.tag(TRADES_TABLE, name)
        self.candles.tag(CANDLES_1M, name)

    def maintain(self) -> None:
        """Do what Dagster does each hour."""
        for table in (TRADES_TABLE, CANDLES_1M):
            maintain(self._settings, self._home, self.archive, self.candles, table, look_for_orphans=True)

    def sizes(self) -> tuple[TableSize, TableSize]:
        """Return the sizes of trades and candles."""
        return iceberg_size(self.archive, TRADES_TABLE), paimon_size(self.candles, CANDLES_1M)

    def read(self) -> None:
        """Take the time of reading a product's trades, for each of them, and its candles."""
        scanning = _seconds(lambda: self.archive.scan(TRADES_TABLE, product=PRODUCT))
        self.scanning.append(scanning / (self._published // len(USD_PRODUCTS)))
        self.looking_up.append(_seconds(lambda: self.candles.scan(CANDLES_1M, product=PRODUCT)))


def measure() -> list[Figure]:
    """Grow one pair of tables and compare it with a new one."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        old = _Tables(stack, Path(folder) / "old")
        for commit in range(COMMITS - COMPARED):
            old.commit()
            if commit % ((COMMITS - COMPARED) // RUNGS) == 0:
                old.tag(f"rung-{commit}")
            if commit % COMMITS_AN_HOUR == COMMITS_AN_HOUR - 1:
                old.maintain()
        new = _Tables(stack, Path(folder) / "new")
        for commit in range(COMPARED):
            for tables in (old, new):
                tables.commit()
                if commit >= COMPARED - READS:
                    tables.read()
        rows = [sum(stats.rows for stats in tables.archive.partitions(TRADES_TABLE)) for tables in (old, new)]
        if rows != [COMMITS * TRADES, COMPARED * TRADES]:
            raise RuntimeError(f"the archives hold {rows} trades")
        old.maintain()
        archive, candles = old.sizes()
    return [
        _figure(
            "archive, a commit with its maintenance", old.appending[-COMPARED:], new.appending, "ms", 1e3
        ),
        _figure(
            "candles, a commit with its maintenance", old.upserting[-COMPARED:], new.upserting, "ms", 1e3
        ),
        _figure("archive, reading a trade", old.scanning, new.scanning, "ns", 1e9),
        _figure("candles, reading a product", old.looking_up, new.looking_up, "ms", 1e3),
        _past("archive", archive),
        _past("candles", candles),
    ]


def _past(name: str, size: TableSize) -> Figure:
    """Return what a table takes on the disk with its past, beside what it holds."""
    what = f"{name}, on the disk with {size.tags} tagged snapshots ({size.disk_files:,} files)"
    limit = f"what the newest names ({size.files:,} files)"
    return Figure(what, size.disk_bytes / 2**20, "MiB", limit, size.bytes / 2**20, "")


def _figure(name: str, grown: list[float], first: list[float], unit: str, scale: float) -> Figure:
    """Return a figure from the seconds of the grown tables and of the new ones."""
    after, before = (scale * statistics.fmean(seconds) for seconds in (grown, first))
    limit = f"the first {COMPARED} commits, by turns"
    return Figure(f"{name}, after {COMMITS:,} commits", after, unit, limit, before, "≤ 1.5×")


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _step(stage: Stage) -> None:
    if not stage.step().messages:
        raise RuntimeError(f"the stage {stage.name} found nothing to do")
