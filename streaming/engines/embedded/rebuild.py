"""Rebuilding a product's day of candles where the Python workers write them."""

from datetime import date

from lakehouse.candles.rebuild import COLUMNS, rebuild
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, TRADES
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
        wanted = rebuild(trades, known_edges(archive, product, day))
        there = candles.scan(CANDLES_1M, product=product, day=day)
        if wanted.cast(there.schema).equals(there.sort_by("start")):
            return Rebuilt(changed=False)
        candles.replace(CANDLES_1M, product, day, wanted)
    return Rebuilt(changed=True)
