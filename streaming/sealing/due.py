"""Which product-days are over, and which of them have to be sealed (again).

A day is over once the stream has come past its end by the lateness horizon, in event time: the clock on
the wall says nothing about a stream that lags. Everything is read from the trades table's manifests and
properties, never from the log, so that a scheduler may be down for a day and catch up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from pyiceberg.conversions import from_bytes
from pyiceberg.types import TimestamptzType

from lakehouse.market.time import DAY_US, MINUTE_US, day_of, day_start_us, now_us
from lakehouse.market.trade import Exchange
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.iceberg_partitions import PartitionStats
from lakehouse.stores.schemas import TRADES
from lakehouse.stores.seals import SealRecord, seals
from streaming.sealing.day import Origin

LOOK_BACK: Final = timedelta(days=7)
"""How far before the watermark a streamed product's day without any row is taken for an outage of ours.
Older holes are history that nobody streamed: a person backfills it on purpose."""


@dataclass(frozen=True)
class Due:
    """A product-day to seal, and what makes it due: the same text until something changes."""

    product: str
    day: date
    cause: str
    why: str
    """The cause in words."""


def day_end_us(day: date, lateness_minutes: int) -> int:
    """Return the moment, in event time, at which a UTC day is over: its end plus the lateness horizon."""
    return day_start_us(day) + DAY_US + lateness_minutes * MINUTE_US


def newest_event_us(store: IcebergStore) -> int | None:
    """Return the stream's watermark: the newest event time in the archive, None while that is empty."""
    field = TRADES.schema.get_field_index("event_time") + 1
    newest = [
        int(from_bytes(TimestamptzType(), file.upper_bounds[field])) for file in store.data_files(TRADES)
    ]
    return max(newest, default=None)


async def event_clock_us(store: IcebergStore, origin: Origin | None, product: str) -> int:
    """Return how far event time has come: what decides whether a day is over.

    The newest trade in the archive; where the exchange is real, also this machine's clock, as the two agree
    but for seconds; where it is simulated, the exchange's own newest trade, as its clock may run otherwise.

    Raises:
        RestError: the simulated exchange can't be asked.
    """
    archived = newest_event_us(store) or 0
    if origin is None or origin.exchange is not Exchange.SIMULATED:
        return max(archived, now_us())
    async for page in origin.rest.trades(product):
        return max([archived, *(trade.event_us for trade in page.trades)])
    return archived


def due_days(store: IcebergStore, lateness_minutes: int, *, can_fetch: bool) -> list[Due]:
    """Return what has to be sealed now, oldest day first.

    Args:
        store: the namespace's tables.
        lateness_minutes: the lateness horizon.
        can_fetch: whether there is an exchange to ask; without one, days without rows are nobody's.
    """
    watermark = newest_event_us(store)
    if watermark is None:
        return []
    return due_of(store.partitions(TRADES), seals(store), watermark, lateness_minutes, can_fetch=can_fetch)


def due_of(
    partitions: Sequence[PartitionStats],
    sealed: Mapping[tuple[str, date], SealRecord],
    watermark_us: int,
    lateness_minutes: int,
    *,
    can_fetch: bool,
) -> list[Due]:
    """Return what has to be sealed, oldest day first, from what the tables say. Pure.

    Due are days that are over and (a) hold rows and were never sealed, (b) hold other rows than at their
    seal: a trade came past the horizon, (c) hold none although the product was streamed before (only where
    they can be fetched).
    """
    rows = {(stats.product, stats.day): stats.rows for stats in partitions if stats.product is not None}
    due = []
    first_streamed: dict[str, date] = {}
    for (product, day), count in sorted(rows.items()):
        record = sealed.get((product, day))
        if record is None or record.streamed or count != record.rows:
            first_streamed.setdefault(product, day)
        if record is None:
            due.append(Due(product, day, f"never-sealed-{count}", "the day is over"))
        elif record.rows != count:
            why = f"trades came after the day was sealed: {record.rows} then, {count} now"
            due.append(Due(product, day, f"rows-{record.rows}-to-{count}", why))
    if can_fetch:
        newest = day_of(watermark_us)
        for product, first in first_streamed.items():
            for ordinal in range(max(first, newest - LOOK_BACK).toordinal(), newest.toordinal()):
                day = date.fromordinal(ordinal)
                if (product, day) not in rows and (product, day) not in sealed:
                    due.append(
                        Due(product, day, "no-rows", "nothing of the day is archived: the stream was down")
                    )
    over = [item for item in due if day_end_us(item.day, lateness_minutes) <= watermark_us]
    return sorted(over, key=lambda item: (item.day, item.product))
