"""An hour of 2,000 trades a second through the cluster: what has grown after it, beside after twenty minutes.

It takes an hour and is measured only when it is named.
"""

import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG

import psutil

from benchmarks.figure import Figure
from benchmarks.up import MIB, cluster_up
from lakehouse.home import Home, home_of
from lakehouse.settings import Settings
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import BOOK, CANDLES_1M, QUOTES, TRADES, Table
from streaming.engines.flink.job_manager import JobManager
from streaming.engines.flink.target import flink_target

RATE = 2_000
WORKERS = 5
MINUTES = 60
FIRST_MINUTES = 20
"""By then what is no longer named by a table has begun to be deleted."""
EVERY_SECONDS = 300

ARCHIVED: tuple[Table, ...] = (TRADES, QUOTES, BOOK)


@dataclass(frozen=True)
class _Look:
    """Everything that could grow, at one moment."""

    trades: int
    data_files: int
    """Files that the newest snapshots of the three Iceberg tables and of the candles name."""
    files: int
    """All files below the home's tables."""
    snapshots: int
    disk_bytes: int
    """What lies below the home: tables, log, the servers' own files and everyone's logs."""
    state_bytes: int
    memory_bytes: int


def measure() -> list[Figure]:
    """Run for an hour and compare."""
    looks: list[_Look] = []
    with cluster_up(WORKERS, simulated_rate=float(RATE)) as (settings, up):
        home = home_of(settings)
        started = time.monotonic()
        while time.monotonic() < started + MINUTES * 60 - EVERY_SECONDS / 2:
            time.sleep(EVERY_SECONDS)
            looks.append(_look(settings, home, up))
            print(f"{datetime.now(UTC):%H:%M:%S} {looks[-1]}", file=sys.stderr, flush=True)
    first, last = looks[FIRST_MINUTES * 60 // EVERY_SECONDS - 1], looks[-1]
    after = f"after {MINUTES} minutes of {RATE:,} trades/s"
    limit = f"after {FIRST_MINUTES}"
    return [
        Figure(f"trades archived {after}", last.trades, "trades", limit, first.trades, "–"),
        Figure(
            f"data files of the newest snapshots {after}",
            *(last.data_files, "files", limit, first.data_files, "bounded"),
        ),
        Figure(f"all files of the tables {after}", last.files, "files", limit, first.files, "bounded"),
        Figure(f"snapshots {after}", last.snapshots, "snapshots", limit, first.snapshots, "bounded"),
        Figure(
            f"disk, all of the home {after}",
            *(last.disk_bytes / MIB, "MiB", limit, first.disk_bytes / MIB, "–"),
        ),
        Figure(
            f"Flink's state {after}",
            *(last.state_bytes / MIB, "MiB", limit, first.state_bytes / MIB, "bounded"),
        ),
        Figure(
            f"memory of the cluster and the workers {after}",
            *(last.memory_bytes / MIB, "MiB", limit, first.memory_bytes / MIB, "bounded"),
        ),
    ]


def _look(settings: Settings, home: Home, up: psutil.Process) -> _Look:
    with IcebergStore.open(home) as iceberg, PaimonStore.open(home) as paimon:
        archived = [iceberg.partitions(table) for table in ARCHIVED]
        candles = paimon.partitions(CANDLES_1M)
        snapshots = sum(len(iceberg.current(table).metadata.snapshots) for table in ARCHIVED)
    snapshots += len(list(home.paimon.glob("*/candles_1m/snapshot/snapshot-*")))
    target = flink_target(settings, home)
    with target.job_manager() as manager:
        state = _state(manager, target.shared_name)
    return _Look(
        trades=sum(part.rows for part in archived[0]),
        data_files=sum(part.files for parts in archived for part in parts) + sum(p.files for p in candles),
        files=sum(len(_files(folder)) for folder in (home.iceberg, home.paimon)),
        snapshots=snapshots,
        disk_bytes=sum(_files(settings.home)),
        state_bytes=state,
        memory_bytes=_memory(settings, up),
    )


def _files(folder: Path) -> list[int]:
    """Return the size of each file below a folder; without one that is deleted meanwhile."""
    sizes = []
    for path in folder.rglob("*"):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        if S_ISREG(found.st_mode):
            sizes.append(found.st_size)
    return sizes


def _state(manager: JobManager, shared_name: str) -> int:
    (job,) = (
        job for job in manager.jobs(lambda name: shared_name in name and "stream" in name) if job.is_live
    )
    return manager.checkpoints(job.id).state_bytes


def _memory(settings: Settings, up: psutil.Process) -> int:
    """Return the proportional set size of all processes that belong to the home."""
    ours = {up.pid, *(child.pid for child in up.children(recursive=True))}
    total = 0
    for process in psutil.process_iter(["pid", "cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        if process.pid in ours or str(settings.home) in command:
            total += process.memory_full_info().pss
    return total
