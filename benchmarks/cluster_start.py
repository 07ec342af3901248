"""The native cluster's start: from nothing to the last process's answer, and the memory it takes then.

It runs beside a cluster that runs already: on free ports and in a folder of its own.
"""

import os

import psutil
from rich.console import Console

from benchmarks.figure import Figure
from benchmarks.own_cluster import open_folder, settings_for
from streaming.cluster.definition import load
from streaming.cluster.runner import Cluster


def measure() -> list[Figure]:
    """Start all processes but Iggy once, the jars being there."""
    definition = load()
    console = Console(stderr=True)
    with open_folder() as folder:
        cluster = Cluster(settings_for(folder, definition), definition)
        cluster.fetch(console.print)
        try:
            seconds = cluster.up(console.print)
            found = cluster.status()
            work = sum(_cpu_seconds(one.pid) for one in found)
            memory = sum(one.memory_mib for one in found)
        finally:
            cluster.down()
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
    return float(sum(time.user + time.system for time in times))
