"""Watching the quarantine: a day on which many inputs were refused raises an alert, and so does each as many.

The alert's key names the day and how many times the bound was passed, so the cursor decides nothing: it only
saves looking at days that have not grown.
"""

from collections import Counter
from datetime import date, timedelta
from typing import Final

import dagster as dg
import msgspec

from lakehouse.settings import load_settings
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import QUARANTINE
from lakehouse_assets.cursor import decoded, encoded
from lakehouse_assets.operations.alerts import Alert, Alerts
from lakehouse_assets.resources import Lakehouse

LOOK_BACK: Final = timedelta(days=7)
"""Days before the newest refused input that are looked at: longer than Dagster may well be down."""
_REASONS_SHOWN = 5


class Seen(msgspec.Struct):
    """How many inputs of each day had been refused at the last tick."""

    rows: dict[str, int] = msgspec.field(default_factory=dict)


def refused_inputs_sensor() -> dg.SensorDefinition:
    """Return the sensor."""

    @dg.sensor(
        name="alert_on_refused_inputs",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=60,
        description=(
            "Raises an alert each time a day's quarantine has grown by LAKEHOUSE_ALERT_REFUSED_INPUTS: the "
            "exchange changed its format, or somebody sends us garbage."
        ),
    )
    def alert_on_refused_inputs(
        context: dg.SensorEvaluationContext, lakehouse: Lakehouse
    ) -> dg.SensorResult | dg.SkipReason:
        if not lakehouse.is_written:
            return lakehouse.no_data()
        bound = load_settings(home=lakehouse.home.root).alert_refused_inputs
        seen = decoded(context.cursor, Seen)
        with lakehouse.iceberg() as store:
            rows = {stats.day: stats.rows for stats in store.partitions(QUARANTINE)}
            rows = {day: count for day, count in rows.items() if day >= max(rows) - LOOK_BACK}
            grown = [day for day, count in rows.items() if count > seen.rows.get(day.isoformat(), 0)]
            alerts = [_alert(store, day, rows[day], bound) for day in grown if rows[day] >= bound]
        raised = Alerts(lakehouse.home).raise_all(alerts)
        return dg.SensorResult(
            skip_reason=f"{raised} alerts raised, {sum(rows.values()):,} inputs refused in {len(rows)} days",
            cursor=encoded(Seen({day.isoformat(): count for day, count in rows.items()})),
        )

    return alert_on_refused_inputs


def _alert(store: IcebergStore, day: date, rows: int, bound: int) -> Alert:
    reasons = Counter(store.scan(QUARANTINE, day=day, columns=["reason"])["reason"].to_pylist())
    told = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(_REASONS_SHOWN))
    return Alert(
        f"refused_inputs:{day}:{bound}:{rows // bound}",
        "Inputs are being refused",
        f'{rows:,} inputs of {day} are in quarantine ({told}). Look at them with `lakehouse sql "SELECT '
        f"reason, detail, frame FROM quarantine WHERE day = '{day}' ORDER BY recorded_at DESC LIMIT 20\"`: "
        "if the exchange changed its format, its decoder in streaming/exchanges has to follow",
    )
