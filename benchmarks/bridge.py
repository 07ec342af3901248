"""The bridge: how many trades a second three servers acknowledge, and how old the newest visible trade is."""

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
from rich.console import Console

from benchmarks.figure import Figure, percentile
from benchmarks.own_cluster import own_cluster
from benchmarks.prepared_trades import publish, trade_records
from lakehouse.home import Home
from lakehouse.market.time import now_us
from lakehouse.settings import Settings
from lakehouse.stores.fluss_connection import FlussTarget, connect, target_of
from lakehouse.stores.fluss_model import FlussHotModel
from lakehouse.stores.fluss_writer import PIECES_IN_FLIGHT, ROWS_AT_ONCE, FlussWriter, event_loop
from streaming.engines.fluss.archived import CommittedByArchive
from streaming.engines.fluss.bridge import BridgeStage, rows_of
from streaming.engines.fluss.current_table import CurrentTable
from streaming.spine.contract import Partition
from streaming.spine.sqlite import SqliteSpine
from streaming.spine.topics import TRADES

TRADES_PUSHED = 1_200_000
RATE = 12_000
AT_ONCE_SECONDS = 0.01
FRESHNESS_SECONDS = 30.0
LOOK_EVERY_SECONDS = 0.002
SMALL = RATE // 100


def measure() -> list[Figure]:
    """Measure both; the limits are what the client reaches by itself, in the same run."""
    with own_cluster(Console(stderr=True).print) as settings_of:
        settings = settings_of("bridge").model_copy(update={"hot_store": "fluss", "engine": "embedded"})
        home = Home(settings.home, "simulated").create()
        return [*_throughput(settings, home), _freshness(settings, home)]


@contextmanager
def _own_tables(target: FlussTarget) -> Iterator[FlussTarget]:
    """Give tables that are gone after the block; the namespace's are not touched."""
    own = replace(target, database=f"benchmark_{uuid4().hex[:12]}")
    try:
        yield own
    finally:
        asyncio.run(_drop(own))


async def _drop(target: FlussTarget) -> None:
    admin = (await connect(target)).get_admin()
    await admin.drop_database(target.database, ignore_if_not_exists=True, cascade=True)


def _throughput(settings: Settings, home: Home) -> list[Figure]:
    with (
        SqliteSpine.open(home.spine, settings.spine_partitions) as spine,
        event_loop() as runner,
        _own_tables(target_of(settings, home)) as target,
        _own_tables(target) as limit_target,
        CurrentTable.kept(target) as current,
    ):
        publish(spine, trade_records(ROWS_AT_ONCE, start_us=now_us(), step_us=10), at_once=ROWS_AT_ONCE)
        stage = BridgeStage(
            spine,
            CommittedByArchive(spine),
            lambda: FlussWriter.open(runner, target),
            current,
            compare_seconds=60,
            grace_seconds=60,
        )
        stage.step()
        trades = trade_records(TRADES_PUSHED, start_us=now_us(), step_us=10, first=ROWS_AT_ONCE)
        publish(spine, trades, at_once=20_000)
        started = time.perf_counter()
        while stage.step().messages:
            pass
        pushed = TRADES_PUSHED / (time.perf_counter() - started)
        limit = _prepared_batches(FlussWriter.open(runner, limit_target), spine)
    limit_name = "prepared Arrow batches by the client alone, acknowledged"
    name = "spine → Fluss, acknowledged by three replicas"
    return [Figure(name, pushed, "trades/s", limit_name, limit, "≥ 60,000, goal 100,000")]


def _prepared_batches(writer: FlussWriter, spine: SqliteSpine) -> float:
    parts = []
    for number in range(spine.partitions):
        partition = Partition(TRADES, number)
        batch = spine.read(partition, 0, TRADES_PUSHED // spine.partitions)
        if batch.payloads:
            parts.append(rows_of(batch, partition))
    rows = pa.concat_tables(parts)
    at_once = ROWS_AT_ONCE * PIECES_IN_FLIGHT
    writer.write({TRADES: rows.slice(0, ROWS_AT_ONCE)})
    started = time.perf_counter()
    for start in range(0, rows.num_rows, at_once):
        writer.write({TRADES: rows.slice(start, at_once)})
    return int(rows.num_rows) / (time.perf_counter() - started)


def _freshness(settings: Settings, home: Home) -> Figure:
    own = Home(home.root / "fresh", "simulated").create()
    target = target_of(settings, own)
    with _bridge(settings, own), event_loop() as runner:
        started = now_us()
        stop = threading.Event()
        feed = threading.Thread(target=_publish, args=(own, stop))
        feed.start()
        try:
            with FlussHotModel.open(target) as model:
                while max(model.newest_us().values(), default=0) < started + 5_000_000:
                    time.sleep(0.1)
                ages = _ages(model)
        finally:
            stop.set()
            feed.join()
        with _own_tables(target) as limit_target:
            limit = _acknowledgement(FlussWriter.open(runner, limit_target))
    return Figure(
        f"hot freshness through Fluss at {RATE:,} trades/s, p99 age of the newest visible trade",
        percentile(ages, 0.99) * 1000,
        "ms",
        f"acknowledgement of {SMALL} rows, p99",
        limit * 1000,
        "≤ 250",
    )


@contextmanager
def _bridge(settings: Settings, home: Home) -> Iterator[None]:
    """Run the bridge's process on a home for the block."""
    chosen = {
        "home": home.root,
        "feed": "simulated",
        "spine": "sqlite",
        "hot_store": "fluss",
        "engine": "embedded",
        "metrics_port": 0,
        "fluss_address": settings.fluss_address,
        "fluss_replicas": settings.fluss_replicas,
    }
    environment = os.environ | {f"LAKEHOUSE_{name.upper()}": str(value) for name, value in chosen.items()}
    process = subprocess.Popen([sys.executable, "-m", "streaming.workers.bridge"], env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def _publish(home: Home, stop: threading.Event) -> None:
    published, due = 0, time.monotonic()
    at_once = int(RATE * AT_ONCE_SECONDS)
    with SqliteSpine.open(home.spine) as spine:
        while not stop.wait(max(due - time.monotonic(), 0)):
            due += AT_ONCE_SECONDS
            trades = trade_records(at_once, start_us=now_us(), step_us=0, first=published)
            publish(spine, trades, at_once=at_once)
            published += at_once


def _ages(model: FlussHotModel) -> list[float]:
    ages = []
    end = time.monotonic() + FRESHNESS_SECONDS
    while time.monotonic() < end:
        time.sleep(LOOK_EVERY_SECONDS)
        ages.append((now_us() - max(model.newest_us().values())) / 1e6)
    return ages


def _acknowledgement(writer: FlussWriter) -> float:
    with tempfile.TemporaryDirectory() as folder, SqliteSpine.open(Path(folder) / "spine.db") as spine:
        publish(spine, trade_records(SMALL * 10, start_us=now_us(), step_us=10), at_once=1000)
        partition = max((Partition(TRADES, n) for n in range(spine.partitions)), key=spine.end)
        rows = rows_of(spine.read(partition, 0, SMALL), partition)
    times = []
    for _ in range(200):
        started = time.perf_counter()
        writer.write({TRADES: rows})
        times.append(time.perf_counter() - started)
    return percentile(times, 0.99)
