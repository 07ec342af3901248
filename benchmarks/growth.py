"""What a commit and a read cost after two thousand commits, beside the first hundred.

The real stages step over small batches, with all the maintenance they do. One pair of tables grows to 1,900
commits; then the next hundred take turns with the first hundred of a new pair, so that whatever else the
machine does slows both alike.
"""

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.figure import Figure, median_seconds
from benchmarks.prepared_trades import publish, trade_records
from lakehouse.home import Home
from lakehouse.market.time import DAY_US, SECOND_US, now_us
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M
from lakehouse.stores.schemas import TRADES as TRADES_TABLE
from streaming.engines.embedded.archive import ArchiveStage
from streaming.engines.embedded.candles import CandlesStage
from streaming.engines.embedded.stage import Stage
from streaming.spine.sqlite import SqliteSpine

COMMITS = 2_000
COMPARED = 100
TRADES = 600
STEP_US = 2 * SECOND_US // TRADES
"""A commit holds two seconds of 300 trades a second, so two thousand are 67 minutes."""

PRODUCT = "BTC-USD"


class _Tables:
    """A log, the two stages on it and their tables; each commit goes on where the last one ended."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        home = Home(folder, "simulated").create()
        self._spine = stack.enter_context(SqliteSpine.open(home.spine))
        self.archive = stack.enter_context(IcebergStore.open(home))
        self.candles = stack.enter_context(PaimonStore.open(home))
        self._archiving = ArchiveStage(self._spine, self.archive)
        self._counting = CandlesStage(self._spine, self.candles, lateness_minutes=10)
        self._published = 0
        self._start_us = now_us() // DAY_US * DAY_US
        self.appending: list[float] = []
        self.upserting: list[float] = []

    def commit(self) -> None:
        """Publish a batch, and take the time of both stages."""
        trades = trade_records(TRADES, start_us=self._start_us, step_us=STEP_US, first=self._published)
        publish(self._spine, trades, at_once=TRADES)
        self._published += TRADES
        self.appending.append(_seconds(self._archiving))
        self.upserting.append(_seconds(self._counting))

    def read_archive(self) -> None:
        """Read a product's trades."""
        self.archive.scan(TRADES_TABLE, product=PRODUCT)

    def read_candles(self) -> None:
        """Read a product's candles."""
        self.candles.scan(CANDLES_1M, product=PRODUCT)


def measure() -> list[Figure]:
    """Grow one pair of tables and compare it with a new one."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        old = _Tables(stack, Path(folder) / "old")
        for _ in range(COMMITS - COMPARED):
            old.commit()
        new = _Tables(stack, Path(folder) / "new")
        for _ in range(COMPARED):
            old.commit()
            new.commit()
        rows = [
            sum(stats.rows for stats in tables.archive.partitions(TRADES_TABLE) if stats.product == PRODUCT)
            for tables in (old, new)
        ]
        if rows != [COMMITS * TRADES // 6, COMPARED * TRADES // 6]:
            raise RuntimeError(f"the archives hold {rows} trades of {PRODUCT}")
        trade_seconds, candle_seconds = [], []
        for tables, count in zip((old, new), rows, strict=True):
            trade_seconds.append(median_seconds(tables.read_archive, repeats=11) / count)
            candle_seconds.append(median_seconds(tables.read_candles, repeats=11))
    appends = [statistics.fmean(tables.appending[-COMPARED:]) for tables in (old, new)]
    upserts = [statistics.fmean(tables.upserting[-COMPARED:]) for tables in (old, new)]
    return [
        _figure("archive, a commit with its maintenance", appends, "ms", 1e3),
        _figure("candles, a commit with its maintenance", upserts, "ms", 1e3),
        _figure("archive, reading a trade", trade_seconds, "ns", 1e9),
        _figure("candles, reading a product", candle_seconds, "ms", 1e3),
    ]


def _figure(name: str, seconds: list[float], unit: str, scale: float) -> Figure:
    """Return a figure from the seconds of the grown tables and of the new ones."""
    after, first = (scale * one for one in seconds)
    limit = f"the first {COMPARED} commits, by turns"
    return Figure(f"{name}, after {COMMITS:,} commits", after, unit, limit, first, "≤ 1.5×")


def _seconds(stage: Stage) -> float:
    start = time.perf_counter()
    if not stage.step().messages:
        raise RuntimeError(f"the stage {stage.name} found nothing to do")
    return time.perf_counter() - start
