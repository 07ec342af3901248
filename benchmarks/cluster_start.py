"""The native cluster's start: from nothing to the last process's answer, and the memory it takes then.

It runs beside a cluster that runs already: on free ports and in a folder of its own.
"""

import os
import shutil
import tempfile
from pathlib import Path

import psutil
from rich.console import Console

from benchmarks.figure import Figure
from benchmarks.free_ports import free_ports
from lakehouse.settings import load_settings
from streaming.cluster.definition import load
from streaming.cluster.place import SET_BY, jars_folder
from streaming.cluster.runner import Cluster


def measure() -> list[Figure]:
    """Start all processes but Iggy once, the jars being there."""
    definition = load()
    ports = dict(zip(definition.ports, free_ports(len(definition.ports)), strict=True))
    folder = Path(tempfile.mkdtemp(prefix="lakehouse-benchmark-"))
    folder.chmod(0o755)  # PostgreSQL runs under another account where we are root
    settings = load_settings(
        home=folder,
        cluster_jars=jars_folder(load_settings()),
        fluss_address=f"127.0.0.1:{ports['fluss-coordinator']}",
        flink_url=f"http://127.0.0.1:{ports['flink-rest']}",
        flink_gateway_url=f"http://127.0.0.1:{ports['flink-gateway']}",
        cluster_ports=",".join(f"{name}={port}" for name, port in ports.items() if name not in SET_BY),
        iceberg_catalog=None,
        iggy_binary=None,
    )
    cluster = Cluster(settings, definition)
    console = Console(stderr=True)
    cluster.fetch(console.print)
    try:
        seconds = cluster.up(console.print)
        found = cluster.status()
        work = sum(_cpu_seconds(one.pid) for one in found)
        memory = sum(one.memory_mib for one in found)
    finally:
        cluster.down()
        shutil.rmtree(folder)
    cores = os.cpu_count() or 1
    return [
        Figure(
            f"cluster of {len(found)} processes ready after its start",
            *(seconds, "s", f"its processor time on {cores} cores", work / cores),
            f"< {definition.ready_seconds} s",
        ),
        Figure(
            "memory of the cluster, started",
            *(memory, "MiB", "the sum of the bounds in processes.toml", definition.memory_mib),
            f"≤ {definition.memory_mib} MiB",
        ),
    ]


def _cpu_seconds(pid: int) -> float:
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(time.user + time.system for time in times)
