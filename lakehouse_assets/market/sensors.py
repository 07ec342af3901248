"""What finds work: product-days that are over by the stream's watermark and have to be sealed.

Work is found by reading the tables, so the sensor may be down for a day and catch up. The cursor only keeps
it from asking too often; without it, or with a damaged one, the same runs are asked for, and Dagster knows
their keys.
"""

from collections.abc import Sequence
from typing import Final

import dagster as dg
import msgspec

from lakehouse.market.time import SECOND_US, now_us
from lakehouse_assets.partitions import CAUSE, product_day_key
from lakehouse_assets.resources import Lakehouse
from streaming.sealing.due import Due, due_days

MOST_RUNS: Final = 12
"""Runs asked for in one tick; the rest comes with the next ones, oldest days first."""

FIRST_PAUSE_SECONDS: Final = 900
LONGEST_PAUSE_SECONDS: Final = 86_400


class Asked(msgspec.Struct, frozen=True):
    """The last time a product-day was asked to be sealed."""

    cause: str
    attempt: int
    at_us: int


def read_cursor(text: str | None) -> dict[str, Asked]:
    """Return what was asked for by partition key; nothing where the cursor can't be read."""
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, Asked])
    except (msgspec.MsgspecError, UnicodeError):
        return {}


def to_ask(due: list[Due], asked: dict[str, Asked], moment_us: int) -> list[tuple[str, Due, Asked]]:
    """Return the runs to ask for now: partition key, what is due, and what the cursor says of it then. Pure.

    A day is asked for once for each cause. If it is still due for the same cause after a pause, its run has
    failed (the exchange was away): it is asked for again, each time after a longer pause.
    """
    wanted: list[tuple[str, Due, Asked]] = []
    for item in due:
        key = product_day_key(item.product, item.day)
        before = asked.get(key)
        attempt = 1
        if before is not None and before.cause == item.cause:
            pause = min(FIRST_PAUSE_SECONDS * 2 ** min(before.attempt - 1, 10), LONGEST_PAUSE_SECONDS)
            if moment_us < before.at_us + pause * SECOND_US:
                continue
            attempt = before.attempt + 1
        wanted.append((key, item, Asked(item.cause, attempt, moment_us)))
    return wanted[:MOST_RUNS]


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
        partitions = trades.partitions_def
        known = [
            item
            for item in due
            if partitions is not None
            and partitions.has_partition_key(product_day_key(item.product, item.day))
        ]
        if len(known) < len(due):
            other = next(item for item in due if item not in known)
            context.log.info(
                f"{len(due) - len(known)} days lie outside the partitions and are left alone, such as "
                f"{other.product} on {other.day}: the product isn't configured, or the day is in the future"
            )
        asked = read_cursor(context.cursor)
        wanted = to_ask(known, asked, now_us())
        still_due = {product_day_key(item.product, item.day) for item in known}
        cursor = {key: entry for key, entry in asked.items() if key in still_due}
        cursor |= {key: entry for key, _, entry in wanted}
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    run_key=f"{key}:{item.cause}:{entry.attempt}",
                    partition_key=key,
                    asset_selection=[trades.key, *(asset.key for asset in looked_at)],
                    tags={CAUSE: item.why},
                )
                for key, item, entry in wanted
            ],
            skip_reason=None
            if wanted
            else f"{len(known)} days due, all asked for"
            if known
            else "no day is due",
            cursor=msgspec.json.encode(cursor).decode(),
        )

    return seal_days_that_are_over
