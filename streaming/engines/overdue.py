"""Candles of trades that came after the lateness horizon, made from the archive.

The live candles leave such trades to the seal of their day. Where nothing seals, as when an older recording
is read into a home after a newer one, this does it.
"""

from datetime import date

import structlog

from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, TRADES
from streaming.engines.rebuilding import RebuildDays

_log = structlog.get_logger()


def rebuild_overdue(
    archive: IcebergStore, candles: PaimonStore, rebuild_days: RebuildDays
) -> list[tuple[str, date]]:
    """Rebuild each product-day whose candles count other trades than the archive holds; return which.

    Call it when the archive and the candles have both taken in the whole log and nothing is writing them.
    """
    sums = candles.scan(CANDLES_1M, columns=["product", "day", "trade_count"]).group_by(["product", "day"])
    counted = {
        (row["product"], row["day"]): row["trade_count_sum"]
        for row in sums.aggregate([("trade_count", "sum")]).to_pylist()
    }
    rebuilt = []
    for stats in archive.partitions(TRADES):
        product, day = str(stats.product), stats.day
        if stats.rows == counted.get((product, day)):
            continue
        rebuild_days(product, [day], archive.snapshot_id(TRADES))
        _log.info("candles rebuilt from the archive", product=product, day=day.isoformat(), trades=stats.rows)
        rebuilt.append((product, day))
    return rebuilt
