"""Rebuilding a product's days of candles from what they are made of, by the engine that writes the candles.

Minutes come from the archived trades, or, of a day of which none is archived, from the exchange's own
candles; hours and days from the minutes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.home import Home
from lakehouse.market.time import DAY_US, day_start_us
from lakehouse.settings import Settings
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, Table


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild did: whether any candle is another one now, and the batch job of Flink that did it."""

    changed: bool
    job_id: str | None = None


class RebuildDays(Protocol):
    """How an engine rebuilds."""

    def __call__(self, product: str, days: Sequence[date], snapshot_id: int | None) -> Mapping[date, Rebuilt]:
        """Make a product's days of a table of candles what their trades or their minutes say.

        Days that are so already keep their rows. A day without a trade in the snapshot becomes what
        `exchange_candles` has of it, empty where that has nothing.

        Args:
            product: whose candles.
            days: UTC days, no more of them than whose trades fit into memory.
            snapshot_id: the snapshot of `trades` to take minutes from, the current one where None. Hours and
                days are taken from the newest snapshot of `candles_1m`.

        Returns:
            What was done, for each day.

        Raises:
            FlinkUnavailableError: Flink doesn't answer; try again.
            FlinkError: Flink failed; each day is as before, or rebuilt already.
        """
        ...


def rebuilder(
    settings: Settings, home: Home, archive: IcebergStore, candles: PaimonStore, table: Table = CANDLES_1M
) -> RebuildDays:
    """Return how the chosen engine rebuilds a table of candles of this home.

    Args:
        settings: which engine, and where it is.
        home: whose tables.
        archive: they, opened.
        candles: they, opened.
        table: `CANDLES_1M`, or one that is rolled up from it.

    Raises:
        HomeError: another engine writes its tables.
    """
    home.claim(settings.engine_kind)
    # Each engine brings libraries that the other does without.
    if settings.engine_kind == "embedded":
        from streaming.engines.embedded import rebuild as embedded

        if table is CANDLES_1M:
            return partial(embedded.rebuild_days, archive, candles)
        return partial(embedded.roll_up_days, candles, table)
    from streaming.engines.flink import rebuild as flink

    if table is CANDLES_1M:
        return partial(flink.rebuild_days, settings, home, archive, candles)
    return partial(flink.roll_up_days, settings, home, candles, table)


def rows_by_day(
    candles: PaimonStore,
    table: Table,
    product: str,
    days: Sequence[date],
    *,
    columns: Sequence[str] | None = None,
) -> dict[date, pa.Table]:
    """Return a product's rows of a table of candles for each of the days, ordered by start.

    Args:
        candles: the tables.
        table: which.
        product: whose rows.
        days: UTC days; what lies between them is read, too.
        columns: those to read, `day` and `start` among them; all where None.
    """
    if not days:
        return {}
    start_us, end_us = day_start_us(min(days)), day_start_us(max(days)) + DAY_US
    rows = candles.scan(table, product=product, start_us=start_us, end_us=end_us, columns=columns)
    rows = rows.sort_by("start")
    return {day: rows.filter(pc.equal(rows["day"], pa.scalar(day))) for day in days}
