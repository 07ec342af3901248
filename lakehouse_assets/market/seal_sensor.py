"""What finds work: product-days that are over by the stream's watermark and have to be sealed.

Work is found by reading the tables, so the sensor may be down for a day and catch up.
"""

from collections.abc import Sequence

import dagster as dg
import msgspec

from lakehouse.market.time import now_us
from lakehouse_assets.cursor import decoded, encoded
from lakehouse_assets.market.seal_requests import Asked, seal_requests
from lakehouse_assets.resources import Lakehouse
from streaming.sealing.due import due_days


class Remembered(msgspec.Struct):
    """What was asked for, by partition key."""

    asked: dict[str, Asked] = msgspec.field(default_factory=dict)


def seal_sensor(trades: dg.AssetsDefinition, looked_at: Sequence[dg.AssetsDefinition]) -> dg.SensorDefinition:
    """Return the sensor; `carry_changes_downstream` does what follows from its runs.

    Args:
        trades: the asset whose materialization seals a day.
        looked_at: assets that the stream alone writes, to be looked at once a day is over.
    """

    @dg.sensor(
        name="seal_days_that_are_over",
        target=[trades, *looked_at],
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description=(
            "Asks for each product-day to be sealed once the stream has come past its end by the lateness "
            "horizon, and again when a trade came later than that."
        ),
    )
    def seal_days_that_are_over(
        context: dg.SensorEvaluationContext, lakehouse: Lakehouse
    ) -> dg.SensorResult | dg.SkipReason:
        if not lakehouse.is_written:
            return lakehouse.no_data()
        with lakehouse.iceberg() as store:
            due = due_days(store, lakehouse.lateness_minutes, can_fetch=lakehouse.can_fetch)
        remembered = decoded(context.cursor, Remembered)
        found = seal_requests(trades, due, remembered.asked, now_us(), looked_at=looked_at)
        if len(found.due) < len(due):
            other = next(item for item in due if item not in found.due)
            context.log.info(
                f"{len(due) - len(found.due)} days lie outside the partitions and are left alone, such as "
                f"{other.product} on {other.day}: the product isn't configured, or the day is in the future"
            )
        idle = f"{len(found.due)} days due, all asked for" if found.due else "no day is due"
        return dg.SensorResult(
            run_requests=found.runs,
            skip_reason=None if found.runs else idle,
            cursor=encoded(Remembered(found.asked)),
        )

    return seal_days_that_are_over
