"""What was seen of the streaming job, as metrics and, where it failed, in the log."""

import math
from functools import partial

import structlog

from lakehouse.market.time import SECOND_US, now_us
from streaming.engines.flink import metrics
from streaming.engines.flink.watch import Circles, Look

_log = structlog.get_logger()


class Reporter:
    """Reports the looks of one keeper, in their order."""

    def __init__(self) -> None:
        self._circles = Circles()
        self._last: Look | None = None

    def tell(self, found: Look) -> None:
        """Report how the job is."""
        metrics.RUNNING.set(found.job.state == "RUNNING")
        metrics.STATE.clear()
        metrics.STATE.labels(found.job.state.lower()).set(1)
        metrics.RESTARTS.set(found.restarts)
        checkpoints = found.checkpoints
        # It goes on while Flink can't be asked.
        metrics.CHECKPOINT_AGE_SECONDS.set_function(partial(_age_seconds, checkpoints.last_us))
        metrics.CHECKPOINTS_FAILED.set(checkpoints.failed)
        metrics.STATE_BYTES.set(checkpoints.state_bytes)
        if checkpoints.last_seconds is not None:
            metrics.CHECKPOINT_SECONDS.set(checkpoints.last_seconds)
        circling = self._circles.circling(found.job.id, found.restarts)
        metrics.CIRCLING.set(circling)
        metrics.FAILURE.clear()
        if found.failure and (circling or found.job.state != "RUNNING"):
            metrics.FAILURE.labels(found.failure).set(1)
        last, self._last = self._last, found
        if last is None or last.job.id != found.job.id or found.restarts == last.restarts:
            return
        where = {"job": found.job.id, "restarts": found.restarts, "problem": found.failure}
        if circling:
            _log.error("the streaming job restarts in circles", **where)
        else:
            _log.warning("the streaming job was restarted", **where)

    def lost(self, problem: str) -> None:
        """Report that nothing is known of the job now, and why."""
        metrics.RUNNING.set(0)
        metrics.STATE.clear()
        metrics.STATE.labels("unknown").set(1)
        metrics.CIRCLING.set(0)
        metrics.FAILURE.clear()
        metrics.FAILURE.labels(problem).set(1)
        metrics.LAG_ROWS.clear()
        metrics.ERRORS.inc()


def _age_seconds(at_us: int | None) -> float:
    return math.nan if at_us is None else max(now_us() - at_us, 0) / SECOND_US
