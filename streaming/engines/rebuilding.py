"""Rebuilding a product's days of candles from archived trades, by the engine that writes the candles."""

from collections.abc import Mapping, Sequence
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


class RebuildDays(Protocol):
    """How an engine rebuilds."""

    def __call__(self, product: str, days: Sequence[date], snapshot_id: int | None) -> Mapping[date, Rebuilt]:
        """Make a product's days of candles those of their trades; those that are so already stay untouched.

        Args:
            product: whose candles.
            days: UTC days, no more of them than whose trades fit into memory.
            snapshot_id: the snapshot of `trades` to take them from, the current one where None.

        Returns:
            What was done, for each day.

        Raises:
            FlinkUnavailableError: Flink doesn't answer; try again.
            FlinkError: Flink failed; the candles of the day it was at are as before.
        """
        ...


def rebuilder(settings: Settings, home: Home, archive: IcebergStore, candles: PaimonStore) -> RebuildDays:
    """Return how the chosen engine rebuilds candles of this home.

    Raises:
        HomeError: another engine writes its tables.
    """
    home.claim(settings.engine_kind)
    # Each engine brings libraries that the other does without.
    if settings.engine_kind == "embedded":
        from streaming.engines.embedded import rebuild as embedded

        return partial(embedded.rebuild_days, archive, candles)
    from streaming.engines.flink import rebuild as flink

    return partial(flink.rebuild_days, settings, home, archive, candles)
