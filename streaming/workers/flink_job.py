"""The keeper of the streaming job: has exactly one run, and says how it is.

The job runs in Flink and goes on without the keeper. What the keeper does when it is started again is look.
With `--once` it only has the job run, and ends: what containers start before everything that follows the job.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from lakehouse import logs
from lakehouse.home import Home, HomeError, home_of
from lakehouse.settings import Settings, SettingsError, load_settings
from lakehouse.stores.fluss_connection import FlussStoreError, FlussUnavailableError, target_of
from lakehouse.stores.fluss_writer import event_loop
from lakehouse.stores.iceberg import IcebergStoreError
from lakehouse.stores.lock import AlreadyRunningError, held
from lakehouse.stores.paimon_files import PaimonStoreError
from streaming.engines.flink import metrics
from streaming.engines.flink.errors import FlinkError, StateLostError
from streaming.engines.flink.lag import Lag
from streaming.engines.flink.reporting import Reporter
from streaming.engines.flink.streaming_job import StreamingJob, prepare
from streaming.engines.flink.target import FlinkTarget, flink_target
from streaming.engines.flink.watch import Look, look
from streaming.workers.metrics import serve
from streaming.workers.stop_signal import StopSignal

WORKER: Final = "flink_job"
LOOK_EVERY_SECONDS: Final = 2.0

_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 15.0
_log = structlog.get_logger()


class Keeper:
    """Keeps one home's streaming job.

    Args:
        target: the job's tables and servers.
        job: the job.
        lag: asks Fluss how far the job is behind.
    """

    def __init__(self, target: FlinkTarget, job: StreamingJob, lag: Lag) -> None:
        self._target = target
        self._job = job
        self._lag = lag
        self._reporter = Reporter()

    def step(self) -> Look:
        """Have the job run, and report how it is.

        Raises:
            FlinkError: Flink doesn't answer or refuses the job.
            FlussStoreError: Fluss doesn't answer.
        """
        job = self._job.ensure()
        with self._target.job_manager() as manager:
            found = look(manager, job)
        self._reporter.tell(found)
        from_start = found.checkpoints.last_path is None
        for table, rows in self._lag.rows(found.positions, from_start=from_start).items():
            metrics.LAG_ROWS.labels(table).set(rows)
        return found

    def lost(self, problem: str) -> None:
        """Report that nothing is known of the job now, and why."""
        self._reporter.lost(problem)


@contextmanager
def opened(settings: Settings, home: Home) -> Iterator[Keeper]:
    """Open the keeper for the block; nobody else may keep this home's job at the same time.

    Raises:
        AlreadyRunningError: another process does.
        CatalogError: the setting of Iceberg's catalog is no address.
    """
    with held(home.locks, f"worker-{WORKER}", wait=False), event_loop() as runner:
        target = flink_target(settings, home)
        job = StreamingJob(target, settings, home.folder / "flink_job.json")
        yield Keeper(target, job, Lag(runner, target_of(settings, home)))


def keep(settings: Settings, home: Home, stop: StopSignal) -> None:
    """Keep the job until `stop` is set; what doesn't answer or fails is tried again after a growing pause.

    Raises:
        HomeError: another engine writes the tables of this home.
        AlreadyRunningError: another process keeps the job.
        StateLostError: the job has committed rows, and its state is gone.
        FlussStoreError: a table in Fluss has another shape.
        IcebergStoreError: the catalog can't be used, or a table has another shape.
        PaimonStoreError: a table has another shape.
    """
    prepared = False
    failures = 0
    with opened(settings, home) as keeper:
        while not stop.is_set():
            try:
                if not prepared:
                    prepare(settings, home)
                    prepared = True
                keeper.step()
            except (FlinkError, FlussUnavailableError) as error:
                if isinstance(error, StateLostError):
                    raise
                failures += 1
                keeper.lost(str(error))
                _log.warning("the streaming job can't be kept now", failures=failures, problem=str(error))
                pause = min(_FIRST_PAUSE_SECONDS * 2 ** (failures - 1), _LONGEST_PAUSE_SECONDS)
                stop.wait(pause)
                continue
            failures = 0
            stop.wait(LOOK_EVERY_SECONDS)


def submit(settings: Settings, home: Home) -> None:
    """Have the job run, once: one that runs already is left alone.

    Raises:
        FlinkError: Flink doesn't answer or refuses the job.
        FlussStoreError: Fluss doesn't answer, or a table in it has another shape.
        HomeError, AlreadyRunningError, IcebergStoreError, PaimonStoreError: as in `keep`.
    """
    with opened(settings, home) as keeper:
        prepare(settings, home)
        keeper.step()


def main() -> int:
    """Run the worker; the exit code is 0 unless it could not go on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="have the job run, and end")
    once = parser.parse_args().once
    stop = StopSignal()
    stop.listen()
    logs.configure(WORKER)
    try:
        settings = load_settings()
        home = home_of(settings).create()
        if once:
            submit(settings, home)
            return 0
        serve(WORKER, settings, home)
        keep(settings, home, stop)
    except (
        *(SettingsError, HomeError, AlreadyRunningError, OSError),
        *(FlinkError, FlussStoreError, IcebergStoreError, PaimonStoreError),
    ) as error:
        _log.critical("the keeper stopped", problem=str(error))
        return 1
    _log.info("the keeper ended; the streaming job goes on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
