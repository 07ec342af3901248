"""The streaming job: how fast rows of Fluss become rows in Iceberg and candles in Paimon, both committed.

The job is stopped, a backlog is put into Fluss, and the job goes on: the time counts from when it runs to
when the last trade is committed in both tables. The limit is a job that only copies: the same trades from
Fluss into Iceberg, without removing what is repeated and without candles.
"""

import time
from dataclasses import dataclass

import pyarrow.compute as pc
from rich.console import Console

from benchmarks.figure import Figure
from benchmarks.own_cluster import own_cluster
from benchmarks.prepared_trades import publish, trade_records
from lakehouse.home import Home, home_of
from lakehouse.market.time import SECOND_US, now_us
from lakehouse.settings import Settings
from lakehouse.stores.fluss_connection import target_of
from lakehouse.stores.fluss_tables import COLUMNS
from lakehouse.stores.fluss_writer import FlussWriter, event_loop
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M
from lakehouse.stores.schemas import TRADES as ARCHIVED
from streaming.engines.flink.saved_state import savepoint_folder
from streaming.engines.flink.statements import Name, Parameters, filled, statements
from streaming.engines.flink.streaming_job import StreamingJob, prepare
from streaming.engines.flink.target import flink_target
from streaming.engines.fluss.bridge import rows_of
from streaming.spine.contract import Partition
from streaming.spine.sqlite import SqliteSpine
from streaming.spine.topics import TRADES

WARM_UP = 600_000
BACKLOG = 3_000_000
AT_ONCE = 200_000
STEP_US = 80
"""Between two trades: 12,500 a second."""

PATIENCE_SECONDS = 600.0
STOP_SECONDS = 120.0

COPY = """
SET 'execution.runtime-mode' = 'streaming';

SET 'pipeline.name' = ${job_name};

SET 'execution.checkpointing.interval' = '5 s';

INSERT INTO ${namespace}.${namespace}.trades
SELECT product, `day`, trade_id, event_time, price, size, taker_side, late, source, exchange, received_at,
  recorded_at, spine_partition, spine_offset
FROM fluss.${fluss_database}.trades /*+ OPTIONS('scan.startup.mode' = 'full') */;
"""


@dataclass
class _Source:
    """Fills Fluss with trades as the bridge would; goes on where it ended."""

    settings: Settings
    home: Home
    written: int = 0

    def write(self, count: int) -> None:
        """Write the next trades of six products, all acknowledged."""
        with (
            event_loop() as runner,
            SqliteSpine.open(self.home.root / f"written-{self.written}.db", 6) as spine,
        ):
            writer = FlussWriter.open(runner, target_of(self.settings, self.home))
            start_us = now_us() - (self.written + count) * STEP_US
            trades = trade_records(count, start_us=start_us, step_us=STEP_US, first=self.written)
            publish(spine, trades, at_once=AT_ONCE)
            for number in range(spine.partitions):
                partition, offset = Partition(TRADES, number), 0
                while (batch := spine.read(partition, offset, AT_ONCE)).payloads:
                    writer.write({TRADES: rows_of(batch, partition).cast(COLUMNS[TRADES])})
                    offset = batch.next_offset
        self.written += count


def measure() -> list[Figure]:
    """Measure the job, then the one that only copies, each in a home of its own on one cluster."""
    with own_cluster(Console(stderr=True).print) as settings_of:
        rate = _measured(settings_of("streaming"), _Streaming)
        limit = _measured(settings_of("copying"), _Copy)
    return [
        Figure(
            "Fluss → Iceberg and Paimon, each row once, committed",
            *(rate, "trades/s", "a Flink job that copies Fluss to Iceberg and does nothing else", limit),
            "≥ 100,000",
        )
    ]


class _Streaming:
    """The job that is measured. It can be stopped and goes on where it was."""

    def __init__(self, settings: Settings, home: Home) -> None:
        self._target = flink_target(settings, home)
        self._job = StreamingJob(self._target, settings, home.folder / "flink_job.json")
        self._paimon = PaimonStore.open(home)
        self._running = ""

    def run(self) -> None:
        self._running = self._job.ensure().id

    def stop(self) -> str:
        with self._target.job_manager() as manager:
            folder = savepoint_folder(manager, self._target.shared_name)
            return manager.stop_with_savepoint(self._running, folder, timeout_seconds=STOP_SECONDS)

    def started_us(self) -> int:
        with self._target.job_manager() as manager:
            return next(job.started_us for job in manager.jobs() if job.id == self._running)

    def committed(self, archived: int) -> int:
        counted: int = pc.sum(self._paimon.scan(CANDLES_1M)["trade_count"]).as_py() or 0
        return min(archived, counted)


class _Copy(_Streaming):
    """The job that it is held against."""

    _state: str | None = None

    def run(self) -> None:
        parameters: Parameters = {
            "job_name": f"copy {self._target.shared_name}",
            "namespace": Name(self._target.namespace),
            "fluss_database": Name(self._target.fluss_database),
        }
        state = statements("state", {"path": self._state}) if self._state else []
        with self._target.session(with_stream=True) as session:
            made = session.run_all([*state, *filled(COPY, parameters)], timeout_seconds=STOP_SECONDS)
        assert made.job_id is not None
        self._running = made.job_id
        with self._target.job_manager() as manager:
            while manager.state(self._running) != "RUNNING":
                time.sleep(0.1)

    def stop(self) -> str:
        self._state = super().stop()
        return self._state

    def committed(self, archived: int) -> int:
        return archived


def _measured(settings: Settings, kind: type[_Streaming]) -> float:
    home = home_of(settings, namespace="simulated").create()
    prepare(settings, home)
    source = _Source(settings, home)
    job = kind(settings, home)
    with IcebergStore.open(home) as iceberg:

        def wait() -> None:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while job.committed(sum(part.rows for part in iceberg.partitions(ARCHIVED))) < source.written:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"not all of {source.written:,} trades came into the tables")
                time.sleep(0.2)

        source.write(WARM_UP)
        job.run()
        wait()
        job.stop()
        source.write(BACKLOG)
        job.run()
        wait()
        rate = BACKLOG / (now_us() - job.started_us()) * SECOND_US
        job.stop()
    return rate
