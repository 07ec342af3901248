"""How the streaming job is: one look at it, and whether it restarts in circles."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from streaming.engines.flink.job_manager import Checkpoints, Job, JobManager

CIRCLE_RESTARTS: Final = 3
CIRCLE_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Look:
    """The streaming job at one moment.

    `positions` are the offsets in Fluss that it has read up to, by table and bucket; those it hasn't said yet
    are left out. `failure` is the root cause of its newest failure, None if it never failed.
    """

    job: Job
    restarts: int
    checkpoints: Checkpoints
    positions: dict[tuple[str, int], int]
    failure: str | None


def look(manager: JobManager, job: Job) -> Look:
    """Ask the JobManager how a job is.

    Raises:
        FlinkError: it doesn't answer, or doesn't know the job any more.
    """
    restarts = int(manager.metrics(job.id, "numRestarts").get("numRestarts", 0))
    return Look(
        job,
        restarts,
        manager.checkpoints(job.id),
        manager.positions(job.id),
        manager.failure(job.id) if restarts or job.state != "RUNNING" else None,
    )


class Circles:
    """Notices a job that restarts again and again: several times within two minutes.

    Args:
        clock: seconds that only ever go up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, str, int]] = deque()

    def circling(self, job_id: str, restarts: int) -> bool:
        """Take note of a job's restarts so far, and tell whether it is restarting in circles."""
        now = self._clock()
        self._seen.append((now, job_id, restarts))
        while self._seen[0][0] < now - CIRCLE_SECONDS or self._seen[0][1] != job_id:
            self._seen.popleft()
        # A JobManager that was started anew counts from 0.
        return restarts - min(seen for _, _, seen in self._seen) >= CIRCLE_RESTARTS
