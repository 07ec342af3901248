"""Waiting until the tables hold what the log holds: for those who need an end of a stream that has none."""

import time
from collections.abc import Callable
from typing import Final

from streaming.engines.archived_offsets import TABLES, ArchivedOffsets
from streaming.engines.flink.errors import FlinkTimeoutError
from streaming.engines.flink.job_manager import JobManager
from streaming.spine.contract import Partition, Spine

_LOOK_EVERY_SECONDS: Final = 0.5
_CHECKPOINTS_AFTER: Final = 2
"""The sinks of one checkpoint commit one after the other, and all before the next but one is complete."""


def settle(
    archived: ArchivedOffsets,
    spine: Spine,
    manager: JobManager,
    job_id: str,
    *,
    patience_seconds: float,
    on_progress: Callable[[int], None],
) -> None:
    """Wait until the archive holds all messages of the log, and the candles all that the archive holds.

    Args:
        archived: what the archive holds.
        spine: the log, to which nobody publishes meanwhile.
        manager: the JobManager.
        job_id: the streaming job.
        patience_seconds: how long nothing may move before it is given up.
        on_progress: told how many messages the archive still lacks.

    Raises:
        FlinkTimeoutError: nothing moved for too long; it names the job's newest failure.
        FlinkError: the JobManager doesn't answer.
        SpineError: the log doesn't answer.
    """
    partitions = [Partition(topic, number) for topic in TABLES for number in range(spine.partitions)]

    def lacking() -> int:
        archived.refresh()
        return sum(spine.end(partition) - archived.frontier(partition) for partition in partitions)

    _until_zero(lacking, manager, job_id, patience_seconds, on_progress)
    wanted = manager.checkpoints(job_id).completed + _CHECKPOINTS_AFTER
    _until_zero(
        lambda: max(wanted - manager.checkpoints(job_id).completed, 0),
        manager,
        job_id,
        patience_seconds,
        lambda _left: on_progress(0),
    )


def _until_zero(
    left: Callable[[], int],
    manager: JobManager,
    job_id: str,
    patience_seconds: float,
    on_progress: Callable[[int], None],
) -> None:
    before = -1
    deadline = 0.0
    while now := left():
        on_progress(now)
        if now != before:
            before, deadline = now, time.monotonic() + patience_seconds
        elif time.monotonic() > deadline:
            cause = manager.failure(job_id) or "it has not failed"
            raise FlinkTimeoutError(
                f"nothing came into the tables for {patience_seconds:g} s; the streaming job's newest "
                f"failure: {cause}"
            )
        time.sleep(_LOOK_EVERY_SECONDS)
