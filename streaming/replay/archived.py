"""A replay's trades, read from the archive in the exchange's order.

The order is that of event time. Of trades with one time those of the product that comes first by name go
first, and a product's own go by trade_id: an exchange numbers each product by itself and says nothing of the
order between two products within a microsecond, so any fixed one will do, and it is the same each time.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from lakehouse.market.columns import codes, microseconds, scaled_integers
from lakehouse.market.trade import REPLAY_RECORD, TRADE_RECORD_VERSION, Exchange, Side, Source
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import TRADES
from streaming.replay.settings import Replay

Records = npt.NDArray[np.void]

_COLUMNS: Final = (
    *("trade_id", "event_time", "price", "size", "taker_side", "late", "source", "exchange"),
    *("received_at", "recorded_at"),
)


def replay_records(archive: IcebergStore, replay: Replay, from_us: Mapping[str, int]) -> Records:
    """Return the trades of a replay as `REPLAY_RECORD`s, in the exchange's order: 80 bytes each, in memory.

    Args:
        archive: where they are.
        replay: which.
        from_us: by product the event time, µs UTC, before which trades are left out.

    Raises:
        SnapshotGoneError: the snapshot has expired.
    """
    parts = [_records(archive, replay, product, from_us.get(product, 0)) for product in replay.products]
    records = np.concatenate(parts)
    if len(parts) == 1:
        return records
    # Each part is in order, so this merges them, and keeps the products' order where times are equal.
    order = np.argsort(np.ascontiguousarray(records["event_us"]), kind="stable")
    whole = np.dtype((np.void, REPLAY_RECORD.itemsize))  # moved as one, not field by field
    return records.view(whole)[order].view(REPLAY_RECORD)


def _records(archive: IcebergStore, replay: Replay, product: str, from_us: int) -> Records:
    rows = archive.scan(
        TRADES,
        product=product,
        day=replay.day,
        columns=_COLUMNS,
        snapshot_id=replay.snapshot_id,
        encoded=True,
    )
    records = np.zeros(rows.num_rows, dtype=REPLAY_RECORD)
    records["product"] = product.encode()
    records["trade_id"] = rows["trade_id"].to_numpy()
    for name in ("price", "size"):
        records[name] = scaled_integers(rows[name])
    for name, column in (("event_us", "event_time"), ("received_us", "received_at")):
        records[name] = microseconds(rows[column])
    records["recorded_us"] = microseconds(rows["recorded_at"])
    for name, meaning in (("taker_side", Side), ("source", Source), ("exchange", Exchange)):
        records[name] = codes(rows[name], meaning)
    records["late"] = rows["late"].to_numpy()
    records["version"] = TRADE_RECORD_VERSION
    records["replay"] = replay.number
    if from_us:
        records = records[records["event_us"] >= from_us]
    event_us, trade_id = records["event_us"], records["trade_id"]
    step = np.diff(event_us)
    if ((step > 0) | ((step == 0) & (np.diff(trade_id) > 0))).all():
        return records
    return records[np.lexsort((trade_id, event_us))]
