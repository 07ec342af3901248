"""Dagster's daemon, one round after the other, by a clock that goes only when a test says so.

The daemon's loops are private in Dagster: whatever is used of them is used here. The instance is that of
`dagster.yaml`, but each run is carried out in this process when it comes off the queue.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import yaml
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.asset_daemon import AssetDaemon
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.run_coordinator import QueuedRunCoordinatorDaemon
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._scheduler.scheduler import launch_scheduled_runs
from dagster_webserver.app import create_app_from_workspace_process_context

ROOT = Path(__file__).parents[2]
CODE = "from lakehouse_assets.definitions import build_defs\n\ndefs = build_defs()\n"

QUEUED = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])
IN_THIS_PROCESS = {
    "module": "dagster._core.launcher.sync_in_memory_run_launcher",
    "class": "SyncInMemoryRunLauncher",
}
_AS_CONFIGURED = ("telemetry", "concurrency", "run_retries")


class Daemon:
    """The daemon of an instance, and the webserver beside it."""

    def __init__(self, workspace: WorkspaceProcessContext, now: datetime) -> None:
        self.instance = workspace.instance
        self._workspace = workspace
        self._now = now
        self._logger = logging.getLogger("daemon")
        self._assets = AssetDaemon({}, pre_sensor_interval_seconds=30)
        self._schedules: dict[str, Any] = {}
        self._queue = QueuedRunCoordinatorDaemon(interval_seconds=5)
        self._webserver = httpx.ASGITransport(create_app_from_workspace_process_context(workspace))

    def sensors(self) -> list[dg.DagsterRun]:
        """Let every sensor tick that runs by itself, a minute later; return the runs that came of it."""
        return self._runs_of(
            timedelta(minutes=1), lambda: execute_sensor_iteration(self._workspace, self._logger, None, None)
        )

    def automation(self) -> list[dg.DagsterRun]:
        """Let the automation conditions be evaluated, a minute later; return the runs that came of it."""
        return self._runs_of(
            timedelta(minutes=1),
            lambda: self._assets._run_iteration_impl(self._workspace, None, {}, {}) or (),
        )

    def schedules(self, after: timedelta) -> list[dg.DagsterRun]:
        """Let schedules tick for the time since the last round; return the runs that came of it.

        The first round only notes when it was: a schedule counts from then on.
        """
        return self._runs_of(
            after,
            lambda: launch_scheduled_runs(self._workspace, self._logger, self._now, self._schedules),
        )

    def backfills(self) -> list[dg.DagsterRun]:
        """Have the backfills that were asked for go a step on; return the runs that came of it."""
        return self._runs_of(
            timedelta(seconds=5), lambda: execute_backfill_iteration(self._workspace, self._logger)
        )

    def ask(self, query: str, **variables: object) -> dict[str, Any]:
        """Ask the webserver over GraphQL, as the UI does; return the answer's data."""

        async def answered() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._webserver, base_url="http://webserver") as client:
                return await client.post("/graphql", json={"query": query, "variables": variables})

        answer = asyncio.run(answered())
        assert answer.is_success, answer.text
        data: dict[str, Any] = answer.json()
        assert "errors" not in data, data["errors"]
        return data["data"]

    def _runs_of(self, after: timedelta, one_round: Callable[[], Iterable[object]]) -> list[dg.DagsterRun]:
        before = {run.run_id for run in self.instance.get_runs()}
        self._now += after
        with freeze_time(self._now):
            errors = [error for error in one_round() if error is not None]
            while self.instance.get_runs_count(QUEUED):
                waiting = self.instance.get_runs_count(QUEUED)
                errors += [e for e in self._queue.run_iteration(self._workspace) if e is not None]
                assert self.instance.get_runs_count(QUEUED) < waiting, "the queue stands still"
        assert not errors, errors
        return [run for run in self.instance.get_runs() if run.run_id not in before]


@contextmanager
def daemon_of(folder: Path, now: datetime) -> Iterator[Daemon]:
    """Give a daemon on an instance of its own, kept in a folder.

    Args:
        folder: the folder; the definitions are those of the settings as they are now.
        now: the time by the daemon's clock.
    """
    code = folder / "code_location.py"
    code.write_text(CODE)
    origin = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(executable_path=sys.executable, python_file=str(code)), location_name="lakehouse"
    )
    configured = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    overrides = {name: configured[name] for name in _AS_CONFIGURED} | {"run_launcher": IN_THIS_PROCESS}
    with (
        dg.DagsterInstance.local_temp(str(folder), overrides=overrides) as instance,
        WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin)) as workspace,
    ):
        yield Daemon(workspace, now)
