"""Watching Dagster's runs: each one that failed, and isn't tried again by itself, raises an alert.

Dagster's own `run_failure_sensor` moves its cursor on though the alert could not be kept, and begins at the
present when it has none. Here the cursor stands still until the alerts are kept, and without one the last day
is looked at; an alert that was raised before is known by its run.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg
import msgspec

from lakehouse.settings import Settings, load_settings
from lakehouse_assets.cursor import decoded, encoded
from lakehouse_assets.operations.alerts import Alert, Alerts
from lakehouse_assets.resources import Lakehouse

MOST_RUNS: Final = 50
"""Runs looked at in one tick; the rest comes with the next ones."""
LOOK_BACK: Final = timedelta(days=1)
"""How far a first tick looks back, and one with a damaged cursor."""

_WILL_RETRY = "dagster/will_retry"
_LONGEST_REASON = 500


class Reached(msgspec.Struct):
    """The newest failure that was looked at, by its number in Dagster's event log."""

    event_id: int | None = None


def failed_runs_sensor() -> dg.SensorDefinition:
    """Return the sensor."""

    @dg.sensor(
        name="alert_on_failed_runs",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Raises an alert for each run that failed and that Dagster doesn't try again by itself.",
    )
    def alert_on_failed_runs(context: dg.SensorEvaluationContext, lakehouse: Lakehouse) -> dg.SensorResult:
        reached = decoded(context.cursor, Reached)
        since = datetime.now(UTC) - LOOK_BACK
        wanted = dg.RunStatusChangeRecordsFilter(
            event_type=dg.DagsterEventType.RUN_FAILURE,
            after_storage_id=reached.event_id,
            after_timestamp=since.timestamp() if reached.event_id is None else None,
        )
        records = context.instance.fetch_run_status_changes(wanted, limit=MOST_RUNS, ascending=True).records
        settings = load_settings(home=lakehouse.home.root)
        alerts = []
        for record in records:
            run = context.instance.get_run_by_id(record.event_log_entry.run_id)
            # Without a run: somebody deleted it.
            if run is not None and run.tags.get(_WILL_RETRY) != "true":
                alerts.append(_alert(run, record.event_log_entry, settings))
        raised = Alerts(lakehouse.home).raise_all(alerts)
        newest = max((record.storage_id for record in records), default=reached.event_id or 0)
        return dg.SensorResult(
            skip_reason=f"{len(records)} runs failed since the last tick, {raised} alerts raised",
            cursor=encoded(Reached(newest)),
        )

    return alert_on_failed_runs


def _alert(run: dg.DagsterRun, event: dg.EventLogEntry, settings: Settings) -> Alert:
    tags = run.tags
    first, last = (tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end"))
    partition = tags.get("dagster/partition") or (f"{first} to {last}" if first else None)
    where = f" of {partition}" if partition else ""
    assets = ", ".join(sorted(key.to_user_string() for key in run.asset_selection or ()))
    return Alert(
        f"failed_run:{run.run_id}",
        "A run failed",
        f"{assets or run.job_name}{where}: {_reason(event)[:_LONGEST_REASON].rstrip('.')}. What to do is in "
        f"the failed check or the error at http://{settings.host}:{settings.dagster_port}/runs/{run.run_id}",
    )


def _reason(event: dg.EventLogEntry) -> str:
    """Return the innermost error of the step that failed first, else what Dagster says of the run."""
    happened = event.dagster_event
    if happened is None:
        return event.user_message
    first = happened.job_failure_data.first_step_failure_event
    error = first.step_failure_data.error if first is not None else happened.job_failure_data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error is not None else happened.message or "no reason is known"
