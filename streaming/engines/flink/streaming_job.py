"""The streaming job: exactly one for each home, with the SQL and the settings of this version.

Its name says whose it is and, by a fingerprint, what it was made from. A job that runs under the name is left
alone, whoever started it and whatever was restarted since. One with another fingerprint is stopped with a
savepoint, with all it read committed, and its successor goes on exactly there.
"""

import asyncio
import hashlib
import time
from pathlib import Path
from typing import Final

import structlog

from lakehouse.home import Home
from lakehouse.settings import Settings
from lakehouse.stores.fluss_connection import connect, target_of
from lakehouse.stores.fluss_tables import create_tables
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from streaming.engines.flink.errors import (
    FlinkTimeoutError,
    FlinkUnavailableError,
    JobFailedError,
    StatementError,
)
from streaming.engines.flink.job_manager import ENDED, Job, JobManager
from streaming.engines.flink.saved_state import (
    JobRecord,
    newest_state,
    read_record,
    savepoint_folder,
    write_record,
)
from streaming.engines.flink.statements import Name, Parameters, statements
from streaming.engines.flink.target import FlinkTarget

SUBMIT_SECONDS: Final = 180.0
"""How long Flink may take to plan and start the job."""

SAVEPOINT_SECONDS: Final = 180.0

_APPEARS_SECONDS: Final = 20.0
"""How long a job may take to be listed after its submission was not answered."""

_DOES_NOT_FIT: Final = "Failed to rollback to checkpoint/savepoint"
_LOOK_EVERY_SECONDS: Final = 0.5
_CANDLE_HOURS: Final = 48
"""How long a minute is known after its last trade: as long as the job may be down."""

_log = structlog.get_logger()


class StreamingJob:
    """The streaming job of one home. Only one process at a time may `ensure` it: hold a lock.

    Args:
        target: its tables and servers.
        settings: its parameters.
        record: file that remembers the job, see `saved_state`.
    """

    def __init__(self, target: FlinkTarget, settings: Settings, record: Path) -> None:
        self._target = target
        self._record = record
        self._parameters = _parameters(target, settings)
        self._prefix = f"lakehouse {target.shared_name} stream "
        unnamed = statements("streaming", {**self._parameters, "job_name": ""})
        self.name: Final = self._prefix + hashlib.sha256("\n".join(unnamed).encode()).hexdigest()[:12]

    def live(self, manager: JobManager) -> list[Job]:
        """Return the jobs of this home that run or will by themselves, whatever version made them.

        Raises:
            FlinkUnavailableError: the JobManager doesn't answer.
        """
        return [job for job in manager.jobs(lambda name: name.startswith(self._prefix)) if job.is_live]

    def ensure(self) -> Job:
        """Have exactly one job run, of this version, and return it.

        Call it again after an error: whatever was done before is found.

        Raises:
            FlinkUnavailableError: Flink doesn't answer; try again.
            StatementError: Flink refuses the SQL.
            JobFailedError: the job ended as it started: it can't take over the state of the one before.
            StateLostError: the job before has committed rows, and its state is gone.
        """
        with self._target.job_manager() as manager:
            found = self.live(manager)
            for surplus in found[1:]:
                _log.error("a second streaming job is cancelled", job=surplus.id, name=surplus.name)
                manager.cancel(surplus.id, timeout_seconds=SAVEPOINT_SECONDS)
            if found:
                self._remember(manager, found[0])
                if found[0].name == self.name:
                    return found[0]
                self._stop(manager, found[0])
            state = newest_state(manager, self._target.shared_name, read_record(self._record))
            return self._start(manager, state)

    def _remember(self, manager: JobManager, job: Job) -> None:
        known = read_record(self._record)
        if known is None or known.job_id != job.id:
            known = JobRecord(job.id, None, committed=False)
        committed = known.committed or manager.checkpoints(job.id).last_path is not None
        write_record(self._record, JobRecord(job.id, known.started_from, committed))

    def _stop(self, manager: JobManager, job: Job) -> None:
        folder = savepoint_folder(manager, self._target.shared_name)
        try:
            path = manager.stop_with_savepoint(job.id, folder, timeout_seconds=SAVEPOINT_SECONDS)
        except JobFailedError as error:
            # It may be restarting in circles for what this version mends. Its last checkpoint does as well.
            _log.warning(
                "the job is cancelled, because it makes no savepoint", job=job.id, problem=str(error)
            )
            manager.cancel(job.id, timeout_seconds=SAVEPOINT_SECONDS)
            return
        _log.info("the streaming job was stopped for another version", job=job.id, savepoint=path)

    def _start(self, manager: JobManager, state: str | None) -> Job:
        job = self._submitted(manager, state)
        write_record(self._record, JobRecord(job.id, state, committed=False))
        deadline = time.monotonic() + SUBMIT_SECONDS
        while (now := manager.state(job.id)) != "RUNNING":
            if now is None or now in ENDED:
                cause = manager.failure(job.id) or "it was stopped"
                raise JobFailedError(f"the streaming job ended as it started: {cause}")
            if time.monotonic() > deadline:
                raise FlinkTimeoutError(
                    f"the streaming job is {now.lower()} for {SUBMIT_SECONDS:g} s: has Flink free slots?"
                )
            time.sleep(_LOOK_EVERY_SECONDS)
        _log.info("the streaming job runs", job=job.id, name=job.name, state=state)
        return job

    def _submitted(self, manager: JobManager, state: str | None) -> Job:
        """Submit the job; where the answer is lost, look for it before anybody submits it again."""
        before = {job.id for job in manager.jobs()}
        lost: FlinkUnavailableError | None = None
        try:
            with self._target.session(with_stream=True) as session:
                if state is not None:
                    session.run_all(statements("state", {"path": state}), timeout_seconds=SUBMIT_SECONDS)
                made = statements("streaming", {**self._parameters, "job_name": self.name})
                session.run_all(made, timeout_seconds=SUBMIT_SECONDS)
        except FlinkUnavailableError as error:
            lost = error
        except StatementError as error:
            if state is None or _DOES_NOT_FIT not in str(error):
                raise
            raise JobFailedError(
                f"the SQL of this version can't take over the state of the one before ({error}): run the "
                "version before, which goes on where it stopped, or use an empty LAKEHOUSE_HOME"
            ) from None
        deadline = time.monotonic() + _APPEARS_SECONDS
        while True:
            for job in manager.jobs(lambda name: name == self.name):
                if job.id not in before:
                    return job
            if time.monotonic() > deadline:
                raise lost or FlinkTimeoutError("the streaming job was submitted and isn't listed: try again")
            time.sleep(_LOOK_EVERY_SECONDS)


def _parameters(target: FlinkTarget, settings: Settings) -> Parameters:
    late = settings.lateness_minutes
    return {
        "namespace": Name(target.namespace),
        "fluss_database": Name(target.fluss_database),
        "parallelism": settings.flink_parallelism,
        "checkpoint_interval": f"{settings.flink_checkpoint_seconds * 1000:.0f} ms",
        "candles_known_for": f"{_CANDLE_HOURS * 60 + 2 * late} min",
    }


def prepare(settings: Settings, home: Home) -> None:
    """Create what the job reads and writes where it is absent: tables in Fluss, Iceberg and Paimon.

    Raises:
        HomeError: another engine writes the tables of this home.
        FlussStoreError: Fluss doesn't answer, or has tables of another shape.
        IcebergStoreError: the catalog can't be used, or a table has another shape.
        PaimonStoreError: a table has another shape.
    """
    home.claim("flink")
    with IcebergStore.open(home), PaimonStore.open(home):
        asyncio.run(_prepare_fluss(settings, home))


async def _prepare_fluss(settings: Settings, home: Home) -> None:
    target = target_of(settings, home)
    await create_tables(await connect(target), target)
