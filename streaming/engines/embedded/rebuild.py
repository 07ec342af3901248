"""Rebuilding a product's days of candles where the Python workers write them."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile

from lakehouse.candles.rebuild import COLUMNS, rebuild
from lakehouse.market.time import DAY_US, day_start_us
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.iceberg_files import PartitionKey
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, TRADES
from lakehouse.stores.seals import edges_of_days
from streaming.engines.rebuilding import Rebuilt


def rebuild_days(
    archive: IcebergStore, candles: PaimonStore, product: str, days: Sequence[date], snapshot_id: int | None
) -> dict[date, Rebuilt]:
    """Make days of candles those of their archived trades; see `streaming.engines.rebuilding.RebuildDays`.

    What is another candle now is one snapshot for all days.
    """
    if not days:
        return {}
    start_us, end_us = day_start_us(min(days)), day_start_us(max(days)) + DAY_US
    with candles.lock(CANDLES_1M):
        files: dict[date, list[DataFile]] = defaultdict(list)
        for file in archive.data_files(TRADES, product=product, snapshot_id=snapshot_id):
            files[PartitionKey.of(file).day].append(file)
        edges = edges_of_days(archive, product, days)
        there = candles.scan(CANDLES_1M, product=product, start_us=start_us, end_us=end_us)
        changed: dict[date, pa.Table] = {}
        for day in days:
            trades = archive.read(TRADES, files[day], columns=COLUMNS, encoded=True)
            wanted = rebuild(trades, edges[day])
            before = there.filter(pc.equal(there["day"], pa.scalar(day)))
            if not wanted.cast(there.schema).equals(before.sort_by("start")):
                changed[day] = wanted
        if changed:
            candles.replace_days(CANDLES_1M, product, changed, pa.concat_tables(changed.values()))
    return {day: Rebuilt(changed=day in changed) for day in days}
