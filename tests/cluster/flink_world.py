"""A streaming job over tables of its own, a log to fill them from, and what they have to hold."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
from bridge_world import drop, in_order, rows_of_log
from log_messages import publish
from reference_candles import from_rows, reference
from running_cluster import RunningCluster

from lakehouse.candles.rebuild import rebuild
from lakehouse.home import Home, home_of
from lakehouse.market.time import DAY_US
from lakehouse.market.trade import Lateness
from lakehouse.settings import Settings
from lakehouse.stores.fluss_connection import FlussTarget, target_of
from lakehouse.stores.fluss_tables import COLUMNS, TOO_LATE
from lakehouse.stores.fluss_writer import FlussWriter, event_loop
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, TABLES, TRADES
from streaming.engines.flink.job_manager import Job
from streaming.engines.flink.streaming_job import StreamingJob
from streaming.engines.flink.target import FlinkTarget, flink_target
from streaming.spine.sqlite import SqliteSpine
from streaming.spine.topics import BOOK, QUOTES
from streaming.spine.topics import TRADES as TRADES_TOPIC

PATIENCE_SECONDS = 150.0
"""Rows are in the tables a checkpoint after Flink read them; on a busy machine everything takes its time."""


@dataclass
class FlinkWorld:
    """What a test works with. `seen` are the trades pushed so far, each once, as the log recorded them."""

    cluster: RunningCluster
    settings: Settings
    home: Home
    spine: SqliteSpine
    fluss: FlussTarget
    flink: FlinkTarget
    iceberg: IcebergStore
    paimon: PaimonStore
    runner: asyncio.Runner
    seen: dict[tuple[str, int], dict[str, Any]]

    def job(self, **overrides: object) -> StreamingJob:
        """Return the streaming job, with other settings where named."""
        settings = self.settings.model_copy(update=overrides)
        return StreamingJob(self.flink, settings, self.home.folder / "flink_job.json")

    def live(self) -> list[Job]:
        """Return the jobs of this home that are not ended."""
        with self.flink.job_manager() as manager:
            return self.job().live(manager)

    def push(self, trades: Sequence[dict[str, Any]]) -> None:
        """Put trades into Fluss as the bridge would; one that was pushed before goes in again as it was."""
        new: dict[tuple[str, int], dict[str, Any]] = {}
        for trade in trades:
            new.setdefault((trade["product"], trade["trade_id"]), trade)
        recorded = publish(self.spine, [trade for key, trade in new.items() if key not in self.seen])
        self.seen.update({(trade["product"], trade["trade_id"]): trade for trade in recorded})
        logged = _by_id(rows_of_log(self.spine, TRADES_TOPIC))
        order = [logged[trade["product"], trade["trade_id"]] for trade in trades]
        too_late = [self.seen[t["product"], t["trade_id"]]["late"] == Lateness.TOO_LATE for t in trades]
        rows = pa.Table.from_pylist(order, schema=TRADES.schema)
        self.write(TRADES_TOPIC, rows.append_column(TOO_LATE, pa.array(too_late, pa.bool_())))

    def write(self, name: str, rows: pa.Table) -> None:
        """Append rows to a log of Fluss, and wait until they are acknowledged."""
        FlussWriter.open(self.runner, self.fluss).write({name: rows.cast(COLUMNS[name])})

    def candles(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Return what `candles_1m` holds, in the reference's form."""
        return from_rows(self.paimon.scan(CANDLES_1M).to_pylist())

    def streamed_candles(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Return the candles of what was pushed, without those of days that a test has put there itself."""
        days = {trade["event_us"] // DAY_US for trade in self.seen.values()}
        return {key: candle for key, candle in self.candles().items() if key[1] // DAY_US in days}

    def wanted(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Return the candles that the trades pushed so far make, computed the slow way."""
        return reference(trade for trade in self.seen.values() if trade["late"] != Lateness.TOO_LATE)

    def check(self) -> None:
        """Wait until the tables hold what was pushed, compare every column, and see that it stays so."""
        self.wait(lambda: self.iceberg_rows(TRADES_TOPIC).num_rows >= len(self.seen), "trades are missing")
        self.wait(lambda: self.candles() == self.wanted(), "candles differ")
        self.check_archive(TRADES_TOPIC)
        in_time = [key for key, trade in self.seen.items() if trade["late"] != Lateness.TOO_LATE]
        rows = rows_of_log(self.spine, TRADES_TOPIC)
        keys = zip(rows["product"].to_pylist(), rows["trade_id"].to_pylist(), strict=True)
        rows = rows.filter(pa.array([key in set(in_time) for key in keys]))
        made = [
            rebuild(rows.filter(pc.equal(rows["product"], product)).cast(TRADES.schema))
            for product in sorted(set(rows["product"].to_pylist()))
        ]
        assert self.candle_rows().equals(sorted_candles(pa.concat_tables(made)))

    def candle_rows(self) -> pa.Table:
        """Return `candles_1m`, ordered by product and start."""
        return sorted_candles(self.paimon.scan(CANDLES_1M))

    def iceberg_rows(self, name: str) -> pa.Table:
        """Return an Iceberg table as it is now, in the order of the log."""
        return in_order(self.iceberg.scan(TABLES[name]).replace_schema_metadata(None))

    def streamed_trades(self) -> int:
        """Return how many archived trades came through the log."""
        return pc.sum(pc.greater_equal(self.iceberg.scan(TRADES)["spine_offset"], 0)).as_py() or 0

    def check_archive(self, name: str) -> None:
        """Compare an Iceberg table with the log, every row and column."""
        found, logged = self.iceberg_rows(name), rows_of_log(self.spine, name)
        assert found.num_rows == logged.num_rows, f"{name}: {found.num_rows} rows, not {logged.num_rows}"
        assert found.equals(logged.select(found.column_names).cast(found.schema)), f"{name} differs"

    def check_everything(self) -> None:
        """As `check`, and the archive of quotes and books as well."""
        self.check()
        for name in (QUOTES, BOOK):
            count = rows_of_log(self.spine, name).num_rows
            self.wait(lambda name=name, count=count: self.iceberg_rows(name).num_rows >= count, name)
            self.check_archive(name)

    def wait(self, is_so: Callable[[], bool], otherwise: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until something is so, or fail."""
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, f"after {seconds:g} s: {otherwise}"
            time.sleep(0.5)

    def checkpoints(self, job: Job) -> int:
        """Return how many checkpoints the JobManager has seen since it knows the job."""
        with self.flink.job_manager() as manager:
            return manager.checkpoints(job.id).completed


def _by_id(rows: pa.Table) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["product"], row["trade_id"]): row for row in rows.to_pylist()}


def sorted_candles(rows: pa.Table) -> pa.Table:
    """Return rows of `candles_1m` ordered by product and start, in one piece."""
    ordered = rows.sort_by([("product", "ascending"), ("start", "ascending")]).combine_chunks()
    return ordered.replace_schema_metadata(None).cast(
        pa.schema([f.remove_metadata() for f in CANDLES_1M.schema])
    )


@contextmanager
def flink_world(cluster: RunningCluster, folder: Path, **overrides: object) -> Iterator[FlinkWorld]:
    """A world of its own on a shared cluster; its jobs and its tables in Fluss are gone at the end."""
    settings = cluster.settings(folder, flink_checkpoint_seconds=1.0, **overrides)
    home = home_of(settings, namespace="simulated").create()
    home.claim("flink")
    fluss = replace(target_of(settings, home), database=f"test_{uuid4().hex[:12]}", timeout_seconds=20.0)
    flink = replace(flink_target(settings, home), fluss_database=fluss.database)
    with ExitStack() as stack:
        world = FlinkWorld(
            cluster,
            settings,
            home,
            stack.enter_context(SqliteSpine.open(home.spine)),
            fluss,
            flink,
            stack.enter_context(IcebergStore.open(home)),
            stack.enter_context(PaimonStore.open(home)),
            stack.enter_context(event_loop()),
            {},
        )
        FlussWriter.open(world.runner, fluss)
        try:
            yield world
        finally:
            with flink.job_manager() as manager:
                for job in manager.jobs(lambda name: flink.shared_name in name):
                    manager.cancel(job.id, timeout_seconds=60)
            drop(fluss)
