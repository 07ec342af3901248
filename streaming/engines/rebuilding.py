"""Rebuilding a product's day of candles from its archived trades, by the engine that writes the candles."""

from datetime import date
from typing import Protocol

from lakehouse.home import Home
from lakehouse.settings import Settings
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from streaming.engines.embedded.rebuild import rebuild_day


class RebuildDay(Protocol):
    """How an engine rebuilds."""

    def __call__(self, product: str, day: date, snapshot_id: int | None) -> bool:
        """Make a product's day of candles those of its trades, and tell whether that changed any.

        Candles that are right already are not written again.

        Args:
            product: whose candles.
            day: UTC day.
            snapshot_id: the snapshot of `trades` to take them from, the current one where None.
        """
        ...


def rebuilder(settings: Settings, home: Home, archive: IcebergStore, candles: PaimonStore) -> RebuildDay:
    """Return how the chosen engine rebuilds candles of this home.

    Raises:
        HomeError: another engine writes its tables.
    """
    home.claim(settings.engine_kind)
    return lambda product, day, snapshot_id: rebuild_day(archive, candles, product, day, snapshot_id)
