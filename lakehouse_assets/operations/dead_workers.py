"""Watching the streaming workers: one that died, or that doesn't come up again, raises an alert.

supervisord starts again what dies, so that a worker that is there may be another process than before: the
cursor remembers which one it was. In containers there is no supervisord to ask; Docker restarts them.
"""

from pathlib import Path
from typing import Final

import dagster as dg
import msgspec

from lakehouse.market.time import HOUR_US, now_us
from lakehouse_assets.cursor import decoded, encoded
from lakehouse_assets.operations.alerts import Alert, Alerts
from lakehouse_assets.resources import Lakehouse
from streaming.workers.supervisor import Supervised, processes

_GOOD: Final = ("RUNNING", "STARTING")


class Known(msgspec.Struct):
    """The processes at the last tick, and the supervisord they were of."""

    supervisor: str = ""
    pids: dict[str, int] = msgspec.field(default_factory=dict)


def deaths(known: Known, supervisor: str, now: dict[str, Supervised], logs: Path, hour: int) -> list[Alert]:
    """Return an alert for each worker that died since the last tick, or that is down. Pure.

    A worker that keeps dying is told of once an hour.

    Args:
        known: the last tick's processes.
        supervisor: the process id of supervisord; with another one than before all processes are new.
        now: this tick's.
        logs: the folder of their logs.
        hour: which hour it is, counted from any.
    """
    alerts = []
    for name, process in sorted(now.items()):
        before = known.pids.get(name, 0) if known.supervisor == supervisor else 0
        if name == "feed" and process.state == "EXITED":
            continue  # the end of a recording
        if process.state not in _GOOD:
            what = f"is {process.state.lower()}: supervisord goes on trying to start it"
        elif before and process.pid and process.pid != before:
            what = f"died (process {before}) and was started again (process {process.pid})"
        else:
            continue
        alerts.append(
            Alert(
                f"worker:{name}:{supervisor}:{hour}",
                f"The worker {name} died",
                f"{name} {what}. Its last words are in {logs / f'{name}.log'}; `lakehouse status` says what "
                "else is wrong. Nothing is lost: it goes on from what its tables say",
            )
        )
    return alerts


def dead_workers_sensor() -> dg.SensorDefinition:
    """Return the sensor."""

    @dg.sensor(
        name="alert_on_dead_workers",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description=(
            "Raises an alert when a streaming worker (exchange, feed, hot, archive, candles, …) died or "
            "doesn't come up, at most one an hour for each."
        ),
    )
    def alert_on_dead_workers(
        context: dg.SensorEvaluationContext, lakehouse: Lakehouse
    ) -> dg.SensorResult | dg.SkipReason:
        home = lakehouse.home
        now = processes(home)
        if not now:
            return dg.SkipReason("no supervisord runs here: `lakehouse up` starts one")
        supervisor = (home.run / "supervisor.pid").read_text().strip()
        alerts = deaths(decoded(context.cursor, Known), supervisor, now, home.logs, hour=now_us() // HOUR_US)
        raised = Alerts(home).raise_all(alerts)
        return dg.SensorResult(
            skip_reason=f"{len(now)} processes, {raised} alerts raised",
            cursor=encoded(Known(supervisor, {name: process.pid for name, process in now.items()})),
        )

    return alert_on_dead_workers
