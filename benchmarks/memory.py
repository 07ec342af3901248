"""Memory of everything that `lakehouse up` starts, two minutes after it.

What processes share counts once: the sum is of proportional set sizes (PSS), over the whole process tree. It
is held against the part of it that is Dagster's own processes.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.free_ports import free_ports

SECONDS = 120
EVERY_SECONDS = 5
MIB = 2**20


def measure() -> list[Figure]:
    """Start everything with its defaults in an empty home, on free ports."""
    with tempfile.TemporaryDirectory() as folder:
        websocket, rest, dagster = free_ports(3)
        environment = os.environ | {
            "LAKEHOUSE_HOME": folder,
            "LAKEHOUSE_SIMULATED_WEBSOCKET_PORT": str(websocket),
            "LAKEHOUSE_SIMULATED_REST_PORT": str(rest),
            "LAKEHOUSE_DAGSTER_PORT": str(dagster),
            "LAKEHOUSE_METRICS_PORT": "0",
        }
        lakehouse = str(Path(sys.executable).with_name("lakehouse"))
        up = subprocess.Popen(
            [lakehouse, "up", "--feed", "simulated"], env=environment, stdout=subprocess.DEVNULL
        )
        highest, sizes = 0, dict[str, int]()
        try:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                time.sleep(EVERY_SECONDS)
                if up.poll() is not None:
                    raise RuntimeError(f"lakehouse up ended with {up.returncode}; what it said is above")
                sizes = _sizes(up.pid)
                highest = max(highest, sum(sizes.values()))
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait()
    total = sum(sizes.values())
    dagsters = sum(size for command, size in sizes.items() if "dagster" in command)
    limit = ("MiB", "of this Dagster's own processes", dagsters / MIB)
    return [
        Figure("memory after two minutes", total / MIB, *limit, "≤ 2,560 MiB"),
        Figure("most at any time before", highest / MIB, *limit, "≤ 2,560 MiB"),
    ]


def _sizes(root: int) -> dict[str, int]:
    """Return the PSS in bytes of a process and all below it, by process id and command."""
    found: dict[str, int] = {}
    waiting = [root]
    while waiting:
        process = Path("/proc") / str(waiting.pop())
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            rollup = (process / "smaps_rollup").read_text()
            waiting += [
                int(child)
                for thread in (process / "task").iterdir()
                for child in (thread / "children").read_text().split()
            ]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended between two looks
        pss = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
        found[f"{process.name} {command}"] = int(pss.split()[1]) * 1024
    return found
