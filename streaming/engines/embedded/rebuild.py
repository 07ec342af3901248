"""Rebuilding a product's day of candles where the Python workers write them."""

from datetime import date

import pyarrow as pa

from lakehouse.candles.rebuild import COLUMNS, rebuild
from lakehouse.candles.rollup import WIDTH_US, rolled_up
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, TRADES, Table
from lakehouse.stores.seals import known_edges
from streaming.engines.rebuilding import Rebuilt


def rebuild_day(
    archive: IcebergStore, candles: PaimonStore, product: str, day: date, snapshot_id: int | None
) -> Rebuilt:
    """Make a day's candles those of its archived trades; see `streaming.engines.rebuilding.RebuildDay`."""
    with candles.lock(CANDLES_1M):
        trades = archive.scan(
            TRADES, product=product, day=day, columns=COLUMNS, snapshot_id=snapshot_id, encoded=True
        )
        return _replaced(
            candles, CANDLES_1M, product, day, rebuild(trades, known_edges(archive, product, day))
        )


def roll_up_day(
    candles: PaimonStore, table: Table, product: str, day: date, _snapshot_id: int | None
) -> Rebuilt:
    """Make a day's hours or days those of its minutes; see `streaming.engines.rebuilding.RebuildDay`."""
    with candles.lock(table):
        minutes = candles.scan(CANDLES_1M, product=product, day=day)
        return _replaced(candles, table, product, day, rolled_up(minutes, WIDTH_US[table.name]))


def _replaced(candles: PaimonStore, table: Table, product: str, day: date, wanted: pa.Table) -> Rebuilt:
    there = candles.scan(table, product=product, day=day)
    if wanted.cast(there.schema).equals(there.sort_by("start")):
        return Rebuilt(changed=False)
    candles.replace(table, product, day, wanted)
    return Rebuilt(changed=True)
