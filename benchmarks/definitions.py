"""`dagster definitions validate`, held against Dagster's own time for a module without definitions."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figure import Figure
from streaming.workers.supervisor import ROOT

TIMES = 3


def measure() -> list[Figure]:
    """Validate in processes of their own, the fastest of some: files are in memory then."""
    with tempfile.TemporaryDirectory() as folder:
        nothing = Path(folder) / "nothing.py"
        nothing.write_text("import dagster as dg\n\ndefs = dg.Definitions()\n")
        limit = _seconds(folder, "-f", str(nothing))
        seconds = _seconds(folder, "-w", str(ROOT / "workspace.yaml"))
    return [
        Figure("dagster definitions validate", seconds, "s", "the same of a module with none", limit, "< 5 s")
    ]


def _seconds(folder: str, *arguments: str) -> float:
    command = [str(Path(sys.executable).with_name("dagster")), "definitions", "validate", *arguments]
    taken = []
    for _ in range(TIMES):
        before = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        taken.append(time.perf_counter() - before)
    return min(taken)
