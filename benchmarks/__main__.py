"""Run all benchmarks, or those named: `python -m benchmarks feed engine`; `cluster` names the cluster's."""

import importlib
import platform
import sys
from datetime import UTC, datetime

from rich.console import Console

from benchmarks.figure import Figure

BENCHMARKS = (
    *("feed", "engine", "freshness", "rebuild", "liquidity"),
    *("definitions", "backfill", "replay", "growth", "memory"),
)
"""Modules of this package with a function `measure() -> list[Figure]`, in the order of the table."""

CLUSTER = ("cluster_start", "iggy", "bridge", "flink", "cluster_freshness")
"""Those of the cluster profile, which start it themselves; Iggy's server has to be given."""

LONG = ("cluster_hour",)
"""Measured only by name."""


def main(names: list[str]) -> int:
    """Measure, and print a table that docs/performance.md can take as it is."""
    names = [each for name in names for each in (CLUSTER if name == "cluster" else (name,))]
    unknown = set(names) - {*BENCHMARKS, *CLUSTER, *LONG}
    if unknown:
        choice = ", ".join((*BENCHMARKS, *CLUSTER, *LONG, "cluster"))
        print(f"no benchmark is called {', '.join(sorted(unknown))}: choose from {choice}")
        return 2
    figures: list[Figure] = []
    console = Console(stderr=True)
    for name in names or BENCHMARKS:
        with console.status(f"measuring {name} …"):
            figures += importlib.import_module(f"benchmarks.{name}").measure()
    print(f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {platform.machine()}\n")
    print("| figure | measured | limit in the same run | ratio | wanted |")
    print("|---|---|---|---|---|")
    for figure in figures:
        print(
            f"| {figure.name} | {_shown(figure.value)} {figure.unit} | "
            f"{_shown(figure.limit)} {figure.unit}: {figure.limit_name} | "
            f"{figure.ratio:.2f} | {figure.target} |"
        )
    return 0


def _shown(value: float) -> str:
    """Return a number with three digits that count, without an exponent."""
    digits = 3 - len(str(int(abs(value)))) if abs(value) >= 1 else 3
    return f"{round(value, digits):,.{max(digits, 0)}f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
