"""What is recorded with a sealed product-day: a day that is over, complete as far as it can be, and sorted.

The record lies in the trades table's properties, written in the same commit as the sealed rows. Rows that
arrive later (a late trade past the horizon) leave it behind: then the partition's row count differs.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.market.columns import microseconds, scaled_integers
from lakehouse.market.product import checked_product
from lakehouse.stores.iceberg import IcebergStore, IcebergStoreError
from lakehouse.stores.iceberg_partitions import PartitionStats
from lakehouse.stores.schemas import TRADES

_PREFIX: Final = "lakehouse.seal."
_CHECKSUM_FORMAT: Final = "lakehouse-trades-1"


class SealRecord(msgspec.Struct, frozen=True, array_like=True):
    """What a product-day held as it was sealed.

    `first_id` and `last_id` bound what the exchange made that day, both included (`last_id < first_id` for
    a day without trades); `streamed` counts the rows that came through the log, the others were fetched by
    the seal. `checksum` is `rows_checksum` of the rows. `asked` is false where there was nobody to ask (a
    recording): the bounds are those of the rows then.

    A list as JSON: every commit to the table writes all records again.
    """

    rows: int
    streamed: int
    first_id: int
    last_id: int
    checksum: str
    asked: bool
    sealed_us: int


def seal_property(product: str, day: date) -> str:
    """Return the name of the table property that holds a product-day's record."""
    return f"{_PREFIX}{day.isoformat()}.{checked_product(product)}"


def seals(store: IcebergStore) -> dict[tuple[str, date], SealRecord]:
    """Return every record by product and day.

    Raises:
        IcebergStoreError: a record can't be read.
    """
    found = {}
    for name, value in store.properties(TRADES).items():
        if name.startswith(_PREFIX):
            day, _, product = name.removeprefix(_PREFIX).partition(".")
            try:
                key = checked_product(product), date.fromisoformat(day)
                found[key] = msgspec.json.decode(value, type=SealRecord)
            except (ValueError, msgspec.MsgspecError) as error:
                raise IcebergStoreError(
                    f"the property {name[:80]} of the trades table can't be read ({error}): remove it, and "
                    "seal the day again"
                ) from error
    return found


def known_edges(store: IcebergStore, product: str, day: date) -> list[int]:
    """Return the ids right before and after a product-day that are known to be other days' trades.

    Of a day whose bounds the exchange told both are; else those that the archive has.
    """
    return edges_of_days(store, product, [day])[day]


def edges_of_days(store: IcebergStore, product: str, days: Iterable[date]) -> dict[date, list[int]]:
    """Return `known_edges` of many days; the table's manifests and records are read once."""
    told = {day: record for (name, day), record in seals(store).items() if name == product and record.asked}
    bounds = {stats.day: stats for stats in store.partitions(TRADES) if stats.product == product}
    return {
        day: [told[day].first_id - 1, told[day].last_id + 1] if day in told else _archived_edges(bounds, day)
        for day in days
    }


def _archived_edges(bounds: Mapping[date, PartitionStats], day: date) -> list[int]:
    here = bounds.get(day)
    if here is None or here.min_trade_id is None or here.max_trade_id is None:
        return []
    before, after = bounds.get(day - timedelta(days=1)), bounds.get(day + timedelta(days=1))
    edges = []
    if before is not None and before.max_trade_id == here.min_trade_id - 1:
        edges.append(here.min_trade_id - 1)
    if after is not None and after.min_trade_id == here.max_trade_id + 1:
        edges.append(here.max_trade_id + 1)
    return edges


def encode_seal(record: SealRecord) -> str:
    """Return a record as the property's text."""
    return msgspec.json.encode(record).decode()


def rows_checksum(product: str, day: date, rows: pa.Table) -> str:
    """Return the SHA-256 of a product-day's trades, as hexadecimal digits.

    It covers what the exchange said and nothing about how or when we heard it: a line
    `lakehouse-trades-1 <product> <day> <count>`, then, each as one little-endian array in the order of
    trade_id: trade_id, event time in µs, price and size times 10⁸ (all int64), and the taker's side (uint8:
    0 buy, 1 sell).

    Args:
        product: whose trades.
        day: UTC day.
        rows: rows of the trades table in any order; no others are looked at.
    """
    order = np.argsort(rows["trade_id"].to_numpy(), kind="stable")
    digest = hashlib.sha256(f"{_CHECKSUM_FORMAT} {product} {day.isoformat()} {rows.num_rows}\n".encode())
    for values in (
        rows["trade_id"].to_numpy(),
        microseconds(rows["event_time"]),
        scaled_integers(rows["price"]),
        scaled_integers(rows["size"]),
    ):
        digest.update(values[order].astype("<i8").tobytes())
    sells = pc.equal(rows["taker_side"], "sell").to_numpy().astype(np.uint8)
    digest.update(sells[order].tobytes())
    return digest.hexdigest()
