"""Watching the gaps: trades that stay missing are asked for again, and a person is told.

The feed fills gaps within seconds, and a seal settles those of its day. What is still open after
LAKEHOUSE_ALERT_GAP_MINUTES raises an alert; where its day is over, that day is sealed again, which asks the
exchange for it once more: once for each cause, which is the ranges of ids that are open, and again after
growing pauses where the run failed.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Final, NamedTuple

import dagster as dg
import msgspec

from lakehouse.market.gap import GapStatus
from lakehouse.market.time import now_us, to_datetime
from lakehouse.settings import load_settings
from lakehouse.stores.seals import SealRecord, seals
from lakehouse_assets.cursor import decoded, encoded
from lakehouse_assets.market.seal_requests import Asked, seal_requests
from lakehouse_assets.operations.alerts import Alert, Alerts
from lakehouse_assets.resources import Lakehouse, LakehouseDuckDB
from streaming.sealing.due import Due, day_end_us, newest_event_us

MOST_ALERTS: Final = 50
"""Gaps that raise an alert in one tick; the rest comes with the next ones."""
MOST_ATTEMPTS: Final = 3
"""Runs for one cause: a run itself waits for an exchange that is away."""
LOOK_BACK: Final = timedelta(days=7)
"""Gaps noticed before are history: longer than Dagster may well be down."""
_IDS_SHOWN: Final = 3

_OVERDUE: Final = """
    SELECT product, day, first_trade_id, last_trade_id, status, noticed_at FROM gaps_open
    WHERE noticed_at BETWEEN $since AND $until ORDER BY noticed_at, product, first_trade_id"""


class OpenGap(NamedTuple):
    """Trades that are missing."""

    product: str
    day: date
    first_id: int
    last_id: int
    status: str
    noticed_at: datetime

    @property
    def ids(self) -> str:
        """The ids, for a person."""
        return f"{self.first_id}" if self.first_id == self.last_id else f"{self.first_id}-{self.last_id}"


class Remembered(msgspec.Struct):
    """What was asked for, by partition key, and the newest gap that a person was told of."""

    asked: dict[str, Asked] = msgspec.field(default_factory=dict)
    told: list[str] = msgspec.field(default_factory=list)
    """Keys of the alerts of gaps that are still open."""


def days_to_seal(
    gaps: Sequence[OpenGap],
    sealed: Mapping[tuple[str, date], SealRecord],
    watermark_us: int,
    lateness_minutes: int,
) -> list[Due]:
    """Return the days that are over and have trades that may still be had, with what is missing. Pure.

    A gap belongs to the sealed day whose ids it touches; where there is none, to the day it was noticed for.
    """
    ranges: dict[tuple[str, date], list[str]] = defaultdict(list)
    for gap in gaps:
        if gap.status != GapStatus.FOUND:
            continue  # the exchange was asked and doesn't have them
        touched = [
            day
            for (product, day), record in sealed.items()
            if product == gap.product and record.first_id <= gap.last_id and gap.first_id <= record.last_id
        ]
        for day in touched or [gap.day]:
            if day_end_us(day, lateness_minutes) <= watermark_us:
                ranges[gap.product, day].append(gap.ids)
    return [
        Due(
            product,
            day,
            f"gaps-{sha256(' '.join(sorted(ids)).encode()).hexdigest()[:16]}",
            f"trades are still missing: {', '.join(ids[:_IDS_SHOWN])}" + ", …" * (len(ids) > _IDS_SHOWN),
        )
        for (product, day), ids in sorted(ranges.items(), key=lambda item: (item[0][1], item[0][0]))
    ]


def open_gaps_sensor(trades: dg.AssetsDefinition) -> dg.SensorDefinition:
    """Return the sensor; its runs materialize `trades`, which seals the day again."""

    @dg.sensor(
        name="fill_gaps_that_stay_open",
        target=trades,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=60,
        description=(
            "Tells a person of trades that have been missing for LAKEHOUSE_ALERT_GAP_MINUTES, and seals "
            "their day again where it is over, which asks the exchange for them once more."
        ),
    )
    def fill_gaps_that_stay_open(
        context: dg.SensorEvaluationContext, lakehouse: Lakehouse, duckdb: LakehouseDuckDB
    ) -> dg.SensorResult | dg.SkipReason:
        if not lakehouse.is_written:
            return lakehouse.no_data()
        bound = load_settings(home=lakehouse.home.root).alert_gap_minutes
        now = to_datetime(now_us())
        window = {"since": now - LOOK_BACK, "until": now - timedelta(minutes=bound)}
        with lakehouse.iceberg() as store, duckdb.get_connection() as connection:
            gaps = [OpenGap(*row) for row in connection.execute(_OVERDUE, window).fetchall()]
            due = (
                days_to_seal(gaps, seals(store), newest_event_us(store) or 0, lakehouse.lateness_minutes)
                if lakehouse.can_fetch
                else []
            )
        remembered = decoded(context.cursor, Remembered)
        alerts = [_alert(gap) for gap in gaps]
        new = [alert for alert in alerts if alert.key not in remembered.told][:MOST_ALERTS]
        raised = Alerts(lakehouse.home).raise_all(new)
        open_keys = {alert.key for alert in alerts}
        told = [key for key in (*remembered.told, *(alert.key for alert in new)) if key in open_keys]
        found = seal_requests(trades, due, remembered.asked, now_us(), most_attempts=MOST_ATTEMPTS)
        return dg.SensorResult(
            run_requests=found.runs,
            skip_reason=None if found.runs else f"{len(gaps)} gaps stay open, {raised} alerts raised",
            cursor=encoded(Remembered(found.asked, told)),
        )

    return fill_gaps_that_stay_open


def _alert(gap: OpenGap) -> Alert:
    count = gap.last_id - gap.first_id + 1
    if gap.status == GapStatus.FOUND:
        what = (
            "The feed could not fetch them; once their day is over it is sealed, which asks again. Is the "
            "exchange's REST interface reachable (`lakehouse status`, the feed's log)?"
        )
    else:
        what = (
            "The exchange was asked and doesn't have them, so they stay missing; candles at their edges are "
            "marked as not complete. Materialize `trades` for the day to ask once more"
        )
    return Alert(
        f"gap:{gap.product}:{gap.ids}:{gap.status}",
        "Trades are missing",
        f"{count:,} trades of {gap.product} ({gap.ids}) have been missing since "
        f"{gap.noticed_at:%Y-%m-%d %H:%M} UTC ({gap.status}). {what}",
    )
