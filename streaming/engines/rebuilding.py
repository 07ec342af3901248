"""Rebuilding a product's day of candles from its archived trades, by the engine that writes the candles."""

from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Protocol

from lakehouse.home import Home
from lakehouse.settings import Settings
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild did: whether any candle is another one now, and the batch job of Flink that did it."""

    changed: bool
    job_id: str | None = None


class RebuildDay(Protocol):
    """How an engine rebuilds."""

    def __call__(self, product: str, day: date, snapshot_id: int | None) -> Rebuilt:
        """Make a product's day of candles those of its trades.

        Args:
            product: whose candles.
            day: UTC day.
            snapshot_id: the snapshot of `trades` to take them from, the current one where None.

        Raises:
            FlinkUnavailableError: Flink doesn't answer; try again.
            FlinkError: Flink failed; the candles are as before.
        """
        ...


def rebuilder(settings: Settings, home: Home, archive: IcebergStore, candles: PaimonStore) -> RebuildDay:
    """Return how the chosen engine rebuilds candles of this home.

    Raises:
        HomeError: another engine writes its tables.
    """
    home.claim(settings.engine_kind)
    # Each engine brings libraries that the other does without.
    if settings.engine_kind == "embedded":
        from streaming.engines.embedded import rebuild as embedded

        return partial(embedded.rebuild_day, archive, candles)
    from streaming.engines.flink import rebuild as flink

    return partial(flink.rebuild_day, settings, home, archive, candles)
