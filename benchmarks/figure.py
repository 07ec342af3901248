"""A measured figure and the limit it is held against."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the table in docs/performance.md."""

    name: str
    value: float
    unit: str
    limit_name: str
    """What could be reached at best, measured in the same run."""
    limit: float
    target: str
    """What was asked for, in words."""

    @property
    def ratio(self) -> float:
        """The value as a part of its limit."""
        return self.value / self.limit


def median_seconds(work: Callable[[], object], *, repeats: int = 5) -> float:
    """Return the median time of a few runs after one that isn't counted."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value below which `part` (0 to 1) of the values lie, by rank."""
    ordered = sorted(values)
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)]
