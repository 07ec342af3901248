"""Spine → archive and candles: both real stages on one core, one after the other.

Held against what any archive of these trades costs on that core: reading them from the log and writing them
with pyarrow as one zstd file.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.figure import Figure
from benchmarks.prepared_trades import publish, trade_records
from lakehouse.home import Home
from lakehouse.market.time import MINUTE_US, now_us
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M
from lakehouse.stores.schemas import TRADES as TRADES_TABLE
from streaming.engines.embedded.archive import ArchiveStage
from streaming.engines.embedded.candles import CandlesStage, live
from streaming.engines.embedded.decode import trade_rows
from streaming.engines.embedded.stage import Stage
from streaming.spine.contract import Partition
from streaming.spine.sqlite import SqliteSpine
from streaming.spine.topics import TRADES

COUNT = 1_200_000
STEP_US = 1_000
"""A thousand trades a second by their own time, so twenty minutes of six products: 120 candles."""

AT_ONCE = 2_000
"""Trades the feed makes durable together when it is as fast as it can be."""

ROUNDS = 3


def measure() -> list[Figure]:
    """Run a process that may use one core only, and read its answer."""
    core = max(os.sched_getaffinity(0))
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.engine"],
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # before any thread exists
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    seconds = json.loads(child.stdout)
    both = seconds["archive"] + seconds["candles"]
    limit = ("pyarrow writes the rows read from the log as one zstd file", COUNT / seconds["limit"])
    return [
        Figure(
            "spine → archive and candles, one core",
            *(COUNT / both, "trades/s", *limit, "≥ 300,000/s, goal 500,000/s"),
        ),
        Figure("of this: archive alone", COUNT / seconds["archive"], "trades/s", *limit, "–"),
        Figure("of this: candles alone", COUNT / seconds["candles"], "trades/s", *limit, "–"),
    ]


def _measured() -> dict[str, float]:
    """Return the median of some rounds: seconds for all trades by what was done with them."""
    rounds = []
    with tempfile.TemporaryDirectory() as folder, SqliteSpine.open(Path(folder) / "spine.db") as spine:
        start_us = now_us() // MINUTE_US * MINUTE_US - COUNT * STEP_US
        publish(spine, trade_records(COUNT, start_us=start_us, step_us=STEP_US), at_once=AT_ONCE)
        for number in range(ROUNDS):
            home = Home(Path(folder) / str(number), "simulated").create()
            with IcebergStore.open(home) as archive, PaimonStore.open(home) as candles:
                rounds.append(
                    {
                        "archive": _drained(ArchiveStage(spine, archive)),
                        "candles": _drained(CandlesStage(spine, candles, live(10))),
                        "limit": _least(spine, home.folder / "all.parquet"),
                    }
                )
                counted = sum(candles.scan(CANDLES_1M)["trade_count"].to_pylist())
                archived = sum(stats.rows for stats in archive.partitions(TRADES_TABLE))
                if (counted, archived) != (COUNT, COUNT):
                    raise RuntimeError(f"{COUNT} trades became {archived} rows, {counted} in candles")
    return {name: sorted(one[name] for one in rounds)[ROUNDS // 2] for name in rounds[0]}


def _drained(stage: Stage) -> float:
    """Return the seconds that a stage takes until it is at the log's end."""
    start = time.perf_counter()
    while stage.step().messages:
        pass
    return time.perf_counter() - start


def _least(spine: SqliteSpine, path: Path) -> float:
    """Read the whole log and write its rows with pyarrow's defaults but for zstd; return the seconds."""
    start = time.perf_counter()
    tables = []
    for number in range(spine.partitions):
        partition = Partition(TRADES, number)
        offset = spine.start(partition)
        while (batch := spine.read(partition, offset, 100_000)).payloads:
            tables.append(trade_rows(batch, partition))
            offset = batch.next_offset
    pq.write_table(pa.concat_tables(tables), path, compression="zstd", compression_level=1)
    return time.perf_counter() - start


if __name__ == "__main__":
    print(json.dumps(_measured()))
