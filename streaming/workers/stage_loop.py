"""What the processes of the three stages do alike: step, report, wait, stop cleanly."""

import time
from collections.abc import Callable, Sequence

import structlog
from prometheus_client import REGISTRY

from lakehouse import logs
from lakehouse.home import HomeError, home_of
from lakehouse.market.time import HOUR_US
from lakehouse.settings import Settings, SettingsError, load_settings
from lakehouse.stores.lock import AlreadyRunningError
from streaming.engines.embedded.decode import MalformedMessageError
from streaming.engines.embedded.stage import Stage, StepResult
from streaming.engines.metrics import DUPLICATES, ERRORS, MESSAGES, TOO_LATE, Progress
from streaming.spine.contract import Spine, SpineError
from streaming.spine.opening import open_spine
from streaming.spine.topics import readers
from streaming.workers.garbage import collect_seldom
from streaming.workers.metrics import serve
from streaming.workers.roster import StageName
from streaming.workers.stages import StageError, opened
from streaming.workers.stop_signal import StopSignal

PATIENCE = 10
"""Failed steps in a row after which the process gives up; its supervisor starts a new one."""

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 15.0
_RETAIN_EVERY_SECONDS = 60.0

_log = structlog.get_logger()

Chore = Callable[[], None]


class StageFailedError(Exception):
    """A stage failed again and again; the log says why."""


def main(name: StageName, *, pause_seconds: Callable[[Settings], float], retains: bool = False) -> int:
    """Run a stage until SIGTERM or SIGINT; return the exit code.

    Args:
        name: the stage.
        pause_seconds: time between the starts of two steps while the stage is not behind.
        retains: also let the log drop its old messages now and then.
    """
    stop = StopSignal()
    stop.listen()
    logs.configure(name)
    try:
        settings = load_settings()
        home = home_of(settings).create()
        with (
            open_spine(settings, home) as spine,
            opened(name, spine, settings, home) as stage,
        ):
            REGISTRY.register(Progress(stage))
            serve(name, settings, home)
            collect_seldom()
            run(stage, stop, pause_seconds(settings), [Retention(spine, settings)] if retains else [])
    except (
        *(SettingsError, HomeError, AlreadyRunningError, SpineError),
        *(StageError, StageFailedError, OSError),
    ) as error:
        _log.critical("the stage stopped", stage=name, problem=str(error))
        return 1
    _log.info("the stage ended", stage=name)
    return 0


def run(stage: Stage, stop: StopSignal, pause_seconds: float, chores: Sequence[Chore] = ()) -> None:
    """Step until `stop` is set, and once more: so a clean stop commits what the feed published last.

    A stage that is far behind leaves the rest for the next start. A step that fails is logged and tried
    again after a growing pause.

    Args:
        stage: what to run.
        stop: when to end.
        pause_seconds: time between the starts of two steps while the stage is not behind.
        chores: called after each step.

    Raises:
        StageFailedError: `PATIENCE` steps in a row failed.
    """
    failures = 0
    last = False
    while not last:
        last = stop.is_set()
        started = time.monotonic()
        try:
            result = stage.step()
            for chore in chores:
                chore()
        except Exception as error:
            failures += 1
            ERRORS.labels(stage.name).inc()
            _log_failure(stage.name, error, failures)
            if failures >= PATIENCE:
                raise StageFailedError(f"{failures} steps in a row failed, the last with: {error}") from error
            stop.wait(min(_FIRST_PAUSE_SECONDS * 2 ** (failures - 1), _LONGEST_PAUSE_SECONDS))
            continue
        failures = 0
        _count(stage.name, result)
        if not result.behind:
            stop.wait(max(pause_seconds - (time.monotonic() - started), 0.0))


def _count(name: str, result: StepResult) -> None:
    for topic, messages in result.messages.items():
        MESSAGES.labels(name, topic).inc(messages)
    if result.duplicates:
        DUPLICATES.labels(name).inc(result.duplicates)
    if result.too_late:
        TOO_LATE.labels(name).inc(result.too_late)
        _log.warning(
            "trades after the lateness horizon: left to the seal of their day", trades=result.too_late
        )


def _log_failure(name: str, error: Exception, failures: int) -> None:
    for one in error.exceptions if isinstance(error, ExceptionGroup) else (error,):
        where = {}
        if isinstance(one, MalformedMessageError):
            where = {"topic": one.partition.topic, "partition": one.partition.number, "offset": one.offset}
        _log.error("a step failed", stage=name, failures=failures, problem=str(one), exc_info=one, **where)


class Retention:
    """A chore: let the log drop what is old and read by everyone, once a minute."""

    def __init__(self, spine: Spine, settings: Settings) -> None:
        self._spine = spine
        self._readers = readers(settings)
        self._max_age_us = int(settings.spine_retention_hours * HOUR_US)
        self._max_bytes = settings.spine_retention_mib * 2**20
        self._due = time.monotonic()

    def __call__(self) -> None:
        """Do it if it is due.

        Raises:
            SpineError: the log did not answer.
        """
        if time.monotonic() < self._due:
            return
        dropped = self._spine.retain(self._readers, self._max_age_us, self._max_bytes)
        if dropped:
            _log.info("old messages dropped from the log", messages=dropped)
        self._due = time.monotonic() + _RETAIN_EVERY_SECONDS
