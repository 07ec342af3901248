"""Rebuilding a product's days of candles where the Python workers write them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date

import pyarrow as pa
from pyiceberg.manifest import DataFile

from lakehouse.candles.of_exchange import of_exchange
from lakehouse.candles.rebuild import COLUMNS, rebuild
from lakehouse.candles.rollup import WIDTH_US, rolled_up
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.iceberg_files import PartitionKey
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, EXCHANGE_CANDLES, TRADES, Table
from lakehouse.stores.seals import edges_of_days
from streaming.engines.rebuilding import Rebuilt, rows_by_day


def rebuild_days(
    archive: IcebergStore, candles: PaimonStore, product: str, days: Sequence[date], snapshot_id: int | None
) -> dict[date, Rebuilt]:
    """Make days of candles those of their archived trades, or the exchange's.

    See `streaming.engines.rebuilding.RebuildDays`.

    What is another candle now is one snapshot for all days.
    """
    with candles.lock(CANDLES_1M):
        traded = _by_day(archive.data_files(TRADES, product=product, snapshot_id=snapshot_id))
        told = _by_day(archive.data_files(EXCHANGE_CANDLES, product=product))
        edges = edges_of_days(archive, product, days)
        wanted = {
            day: rebuild(archive.read(TRADES, traded[day], columns=COLUMNS, encoded=True), edges[day])
            if day in traded
            else of_exchange(archive.read(EXCHANGE_CANDLES, told.get(day, [])))
            for day in days
        }
        return _replaced(candles, CANDLES_1M, product, wanted)


def roll_up_days(
    candles: PaimonStore, table: Table, product: str, days: Sequence[date], _snapshot_id: int | None
) -> dict[date, Rebuilt]:
    """Make days of longer candles those of their minutes; see `streaming.engines.rebuilding.RebuildDays`."""
    with candles.lock(table):
        minutes = rows_by_day(candles, CANDLES_1M, product, days)
        wanted = {day: rolled_up(minutes[day], WIDTH_US[table.name]) for day in days}
        return _replaced(candles, table, product, wanted)


def _replaced(
    candles: PaimonStore, table: Table, product: str, wanted: Mapping[date, pa.Table]
) -> dict[date, Rebuilt]:
    there = rows_by_day(candles, table, product, list(wanted))
    changed = {
        day: rows for day, rows in wanted.items() if not rows.cast(there[day].schema).equals(there[day])
    }
    if changed:
        candles.replace_days(table, product, changed, pa.concat_tables(changed.values()))
    return {day: Rebuilt(changed=day in changed) for day in wanted}


def _by_day(files: Iterable[DataFile]) -> dict[date | None, list[DataFile]]:
    found: dict[date | None, list[DataFile]] = {}
    for file in files:
        found.setdefault(PartitionKey.of(file).day, []).append(file)
    return found
