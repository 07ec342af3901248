"""A client of Flink's JobManager: which jobs there are, how they are, why they fail; stopping them.

Jobs are known by their names here, because ids change with each submission.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlencode

from streaming.engines.flink.errors import FlinkTimeoutError, JobFailedError, root_cause
from streaming.engines.flink.rest import NotThereError, RefusedError, RestClient

ENDED: Final = frozenset({"FINISHED", "FAILED", "CANCELED"})
"""States that a job doesn't leave."""

_PAUSE_SECONDS: Final = 0.2
_SOURCE: Final = "Source: "
_POSITION: Final = re.compile(r".*\.fluss\.reader\.bucket\.(\d+)\.currentOffset")


@dataclass(frozen=True)
class Job:
    """A job; `ended_us` is 0 while it runs. Times are µs UTC by the JobManager's clock."""

    id: str
    name: str
    state: str
    started_us: int
    ended_us: int

    @property
    def is_live(self) -> bool:
        """Whether it runs, or will by itself."""
        return self.state not in ENDED


@dataclass(frozen=True)
class Checkpoints:
    """A job's checkpoints since it was last recovered; what is said of the last is empty before the first."""

    completed: int
    failed: int
    last_us: int | None
    last_path: str | None
    last_seconds: float | None
    """How long the last one took from trigger to end."""
    state_bytes: int
    """All state of the last one, whether it was written by it or before."""


@dataclass(frozen=True)
class JobProgress:
    """How far a job is: tasks that have ended of all, rows that its sources have read."""

    state: str
    ended_tasks: int
    tasks: int
    rows_read: int


class JobManager:
    """One connection. Use it as a context manager.

    Args:
        url: the JobManager's REST address.
        timeout_seconds: longest wait for one answer.
    """

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        self._rest = RestClient("Flink's JobManager", url, "LAKEHOUSE_FLINK_URL", timeout_seconds)

    def close(self) -> None:
        """Close the connection."""
        self._rest.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def jobs(self, is_ours: Callable[[str], bool] = lambda _name: True) -> list[Job]:
        """Return the jobs whose names are ours, oldest first; after a restart with the recovered ones.

        Raises:
            FlinkUnavailableError: the JobManager doesn't answer or isn't ready.
        """
        found = [
            Job(
                job["jid"],
                job["name"],
                job["state"],
                job["start-time"] * 1000,
                max(job["end-time"], 0) * 1000,
            )
            for job in self._rest.ask("GET", "/jobs/overview")["jobs"]
            if is_ours(job["name"])
        ]
        return sorted(found, key=lambda job: (job.started_us, job.id))

    def state(self, job_id: str) -> str | None:
        """Return a job's state, None where the JobManager doesn't know it (any more)."""
        try:
            return str(self._rest.ask("GET", f"/jobs/{job_id}")["state"])
        except NotThereError:
            return None

    def progress(self, job_id: str) -> JobProgress:
        """Return how far a job is.

        Raises:
            JobFailedError: the JobManager doesn't know it.
        """
        try:
            job = self._rest.ask("GET", f"/jobs/{job_id}")
        except NotThereError:
            raise JobFailedError(f"Flink forgot the job {job_id}: was it started anew?") from None
        vertices = job["vertices"]
        ended = sum(vertex["tasks"].get("FINISHED", 0) for vertex in vertices)
        # Sources count only what they pass on, so this is what the others got.
        read = sum(vertex["metrics"]["write-records"] for vertex in vertices if "Source" in vertex["name"])
        return JobProgress(job["state"], ended, sum(vertex["parallelism"] for vertex in vertices), read)

    def failure(self, job_id: str) -> str | None:
        """Return the root cause of a job's newest failure in one line, None where it never failed."""
        try:
            answer = self._rest.ask("GET", f"/jobs/{job_id}/exceptions?maxExceptions=1")
        except NotThereError:
            return None
        entries = answer["exceptionHistory"]["entries"]
        return root_cause(entries[0]["stacktrace"]) if entries else None

    def checkpoints(self, job_id: str) -> Checkpoints:
        """Return what is known of a job's checkpoints.

        Raises:
            FlinkError: the JobManager doesn't know the job.
        """
        answer = self._rest.ask("GET", f"/jobs/{job_id}/checkpoints")
        counts, latest = answer["counts"], answer["latest"]
        newest = max(
            filter(None, (latest["completed"], latest["savepoint"])),
            key=lambda one: one["latest_ack_timestamp"],
            default=None,
        )
        restored = latest["restored"]
        if newest is None:
            path, at = (
                (restored["external_path"], restored["restore_timestamp"]) if restored else (None, None)
            )
            return Checkpoints(
                counts["completed"], counts["failed"], at * 1000 if at else None, path, None, 0
            )
        return Checkpoints(
            counts["completed"],
            counts["failed"],
            newest["latest_ack_timestamp"] * 1000,
            newest["external_path"],
            newest["end_to_end_duration"] / 1000,
            newest["state_size"],
        )

    def metrics(self, job_id: str, *names: str) -> dict[str, float]:
        """Return metrics of a job by name, such as `numRestarts`; those it doesn't have are left out."""
        found = self._rest.ask("GET", f"/jobs/{job_id}/metrics?{urlencode({'get': ','.join(names)})}")
        return {metric["id"]: float(metric["value"]) for metric in found}

    def positions(self, job_id: str) -> dict[tuple[str, int], int]:
        """Return the offset up to which each source has read, by table and bucket of Fluss.

        A bucket of which nothing was read yet is left out.
        """
        found: dict[tuple[str, int], int] = {}
        for vertex in self._rest.ask("GET", f"/jobs/{job_id}")["vertices"]:
            if not vertex["name"].startswith(_SOURCE):
                continue
            table = vertex["name"].removeprefix(_SOURCE).split("[")[0]
            path = f"/jobs/{job_id}/vertices/{vertex['id']}/subtasks/metrics"
            buckets = {
                match.group(0): int(match.group(1))
                for metric in self._rest.ask("GET", path)
                if (match := _POSITION.fullmatch(metric["id"]))
            }
            if not buckets:
                continue
            query = urlencode({"get": ",".join(buckets), "agg": "max"})
            for metric in self._rest.ask("GET", f"{path}?{query}"):
                if metric["max"] >= 0:
                    found[table, buckets[metric["id"]]] = int(metric["max"])
        return found

    def configuration(self) -> dict[str, str]:
        """Return the JobManager's configuration."""
        answer = self._rest.ask("GET", "/jobmanager/config")
        return {entry["key"]: entry["value"] for entry in answer}

    def cancel(self, job_id: str, *, timeout_seconds: float) -> None:
        """Cancel a job and wait until it has ended; one that has ended already stays as it is.

        Raises:
            FlinkTimeoutError: it did not end in time.
        """
        try:
            self._rest.ask("PATCH", f"/jobs/{job_id}?mode=cancel")
        except NotThereError:
            return
        except RefusedError:
            if self.state(job_id) not in (*ENDED, None):
                raise
        self._wait_for_end(job_id, time.monotonic() + timeout_seconds, "cancelled")

    def stop_with_savepoint(self, job_id: str, folder: str, *, timeout_seconds: float) -> str:
        """End a job with all it read committed, and return the path of the savepoint to start anew from.

        Args:
            job_id: a running job.
            folder: address of the folder that the savepoint goes into.
            timeout_seconds: how long it may take.

        Raises:
            JobFailedError: no savepoint could be made; the job goes on, or was restarted.
            FlinkTimeoutError: it took too long.
        """
        deadline = time.monotonic() + timeout_seconds
        body = {"targetDirectory": folder, "drain": False}
        trigger = self._rest.ask("POST", f"/jobs/{job_id}/stop", body)["request-id"]
        while True:
            answer = self._rest.ask("GET", f"/jobs/{job_id}/savepoints/{trigger}")
            if answer["status"]["id"] == "COMPLETED":
                break
            if time.monotonic() > deadline:
                raise FlinkTimeoutError(f"the job {job_id} made no savepoint within {timeout_seconds:g} s")
            time.sleep(_PAUSE_SECONDS)
        operation = answer["operation"]
        if "location" not in operation:
            cause = root_cause(str(operation.get("failure-cause", {}).get("stack-trace", operation)))
            raise JobFailedError(f"the job {job_id} could not be stopped with a savepoint: {cause}")
        self._wait_for_end(job_id, deadline, "stopped")
        return str(operation["location"])

    def follow(
        self,
        job_id: str,
        *,
        timeout_seconds: float,
        on_progress: Callable[[JobProgress], None] = lambda _progress: None,
    ) -> None:
        """Wait until a batch job has finished.

        Raises:
            JobFailedError: it failed or was cancelled.
            FlinkTimeoutError: it has not ended in time; it is cancelled.
        """
        deadline = time.monotonic() + timeout_seconds
        last: JobProgress | None = None
        while True:
            progress = self.progress(job_id)
            if progress != last:
                on_progress(progress)
                last = progress
            if progress.state == "FINISHED":
                return
            if progress.state in ENDED:
                cause = self.failure(job_id) or f"it was {progress.state.lower()}"
                raise JobFailedError(f"the job {job_id} did not finish: {cause}")
            if time.monotonic() > deadline:
                self.cancel(job_id, timeout_seconds=timeout_seconds)
                raise FlinkTimeoutError(f"the job {job_id} did not finish within {timeout_seconds:g} s")
            time.sleep(_PAUSE_SECONDS)

    def _wait_for_end(self, job_id: str, deadline: float, how: str) -> None:
        while (state := self.state(job_id)) is not None and state not in ENDED:
            if time.monotonic() > deadline:
                raise FlinkTimeoutError(f"the job {job_id} was not {how} in time: it is {state.lower()}")
            time.sleep(_PAUSE_SECONDS)
