"""The tables in Fluss: three logs for Flink and the hot store, and the current state of each product.

The logs have the columns of the Iceberg tables that they become, and one more: `trades` says whether a trade
came after the lateness horizon, because only the log decides that, and `book` how many levels its message
has, so that Flink can number the levels of all messages without a step.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import fluss
import pyarrow as pa

from lakehouse.market.time import HOUR_US
from lakehouse.stores import schemas
from lakehouse.stores.fluss_connection import (
    FlussStoreError,
    FlussTarget,
    FlussUnavailableError,
    answer,
)
from lakehouse.stores.hot_store import LATEST

TOO_LATE: Final = pa.field("too_late", pa.bool_(), nullable=False)
"""Column of the log `trades`: after the lateness horizon, so the live candles leave it out."""

LEVELS: Final = pa.field("levels", pa.int32(), nullable=False)
"""Column of the log `book`: how many levels the message has that a row is one of."""

TRADES: Final = "trades"
QUOTES: Final = "quotes"
BOOK: Final = "book"
CURRENT: Final = "latest"

COLUMNS: Final = {
    TRADES: schemas.TRADES.schema.append(TOO_LATE),
    QUOTES: schemas.QUOTES.schema,
    BOOK: schemas.BOOK.schema.append(LEVELS),
    CURRENT: LATEST,
}
"""The columns of each table."""

LOGS: Final = (TRADES, QUOTES, BOOK)

CURRENT_BUCKETS: Final = 1
"""`latest` has a row for each product: one scan of one bucket reads it."""

_CREATIONS: Final = 3
_LEADERS_SECONDS: Final = 5.0
_LOOK_EVERY_SECONDS: Final = 0.05


class FlussShapeError(FlussStoreError):
    """A table is there with another shape; the text says which and what to do."""


@dataclass(frozen=True)
class _Shape:
    columns: list[tuple[str, str]]
    primary_key: list[str]
    bucket_key: list[str]
    buckets: int
    replicas: str | None


def path_of(target: FlussTarget, name: str) -> fluss.TablePath:
    """Return the path of one of our tables."""
    return fluss.TablePath(target.database, name)


async def create_tables(connection: fluss.FlussConnection, target: FlussTarget) -> None:
    """Create what is missing of the database and its tables, and check what is there.

    Raises:
        FlussShapeError: a table has other columns, keys, buckets or replicas.
        FlussStoreError: Fluss did not answer, or refused.
    """
    admin = connection.get_admin()
    await _made(
        admin.create_database(target.database, ignore_if_exists=True),
        lambda: admin.database_exists(target.database),
        target,
        "creating the database",
    )
    for name in COLUMNS:
        path = path_of(target, name)
        # Asked to create a table that is there, Fluss refuses while a tablet server is down.
        if not await answer(admin.table_exists(path), target, f"looking for the table {name}"):
            await _create(connection, target, name)
        info = await answer(admin.get_table_info(path), target, f"looking at the table {name}")
        _check(name, info, target)


async def _create(connection: fluss.FlussConnection, target: FlussTarget, name: str) -> None:
    """Create a table and wait until its buckets have leaders.

    Now and then the coordinator (0.9.1) doesn't notice a new table: it is listed and nobody ever leads it.
    It is dropped then, nothing can be in it, and created again.
    """
    admin, path = connection.get_admin(), path_of(target, name)
    what = f"creating the table {name}"
    for attempt in range(_CREATIONS):
        if attempt:
            await answer(admin.drop_table(path, ignore_if_not_exists=True), target, what)
        request = admin.create_table(path, _descriptor(name, target), ignore_if_exists=True)
        await _made(request, lambda: admin.table_exists(path), target, what)
        patience = time.monotonic() + _LEADERS_SECONDS
        while time.monotonic() < patience:
            try:
                await offsets(connection, target, name, fluss.OffsetSpec.latest())
            except FlussUnavailableError:
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
            else:
                return
    raise FlussUnavailableError(
        f"Fluss at {target.address} created the table {target.database}.{name} and gives it no leaders: "
        "restart its coordinator"
    )


async def _made(
    creation: Awaitable[None], is_there: Callable[[], Awaitable[bool]], target: FlussTarget, what: str
) -> None:
    """Wait until something is created, by us or by another program at the same moment.

    Of two at the same moment one fails in ZooKeeper, and what it wanted is there a little later.
    """
    try:
        await answer(creation, target, what)
    except FlussUnavailableError:
        patience = time.monotonic() + _LEADERS_SECONDS
        while not await answer(is_there(), target, what):
            if time.monotonic() > patience:
                raise
            await asyncio.sleep(_LOOK_EVERY_SECONDS)


def _schema(name: str) -> fluss.Schema:
    return fluss.Schema(COLUMNS[name], primary_keys=["product"] if name == CURRENT else None)


def _descriptor(name: str, target: FlussTarget) -> fluss.TableDescriptor:
    return fluss.TableDescriptor(
        _schema(name),
        bucket_count=_buckets(name, target),
        bucket_keys=["product"],
        properties={
            "table.replication.factor": str(target.replicas),
            "table.log.ttl": f"{round(target.keep_hours * HOUR_US / 1000)} ms",
        },
    )


def _buckets(name: str, target: FlussTarget) -> int:
    return CURRENT_BUCKETS if name == CURRENT else target.buckets


def _check(name: str, info: fluss.TableInfo, target: FlussTarget) -> None:
    wanted = _Shape(
        _schema(name).get_columns(),
        ["product"] if name == CURRENT else [],
        ["product"],
        _buckets(name, target),
        str(target.replicas),
    )
    found = _Shape(
        info.get_schema().get_columns(),
        info.get_primary_keys(),
        info.get_bucket_keys(),
        info.num_buckets,
        info.get_properties().get("table.replication.factor"),
    )
    if found == wanted:
        return
    where = f"the table {target.database}.{name} in Fluss at {target.address}"
    if found.replicas != wanted.replicas:
        raise FlussShapeError(
            f"{where} has {found.replicas} replicas, not {wanted.replicas}: set LAKEHOUSE_FLUSS_REPLICAS to "
            "that, or drop the table (it is filled again from the log)"
        )
    if found.buckets != wanted.buckets:
        raise FlussShapeError(
            f"{where} has {found.buckets} buckets, not {wanted.buckets}: set LAKEHOUSE_SPINE_PARTITIONS to "
            "that, or drop the table (it is filled again from the log)"
        )
    differ = sorted(set(found.columns) ^ set(wanted.columns)) or "the order of its columns or its keys"
    raise FlussShapeError(
        f"{where} has another shape ({differ}): was it made by another version? Drop it, it is filled again "
        "from the log"
    )


async def offsets(
    connection: fluss.FlussConnection, target: FlussTarget, name: str, spec: fluss.OffsetSpec
) -> dict[int, int]:
    """Return an offset of each bucket of a table.

    Raises:
        FlussStoreError: Fluss did not answer.
    """
    buckets = list(range(_buckets(name, target)))
    found = await answer(
        connection.get_admin().list_offsets(path_of(target, name), buckets, spec),
        target,
        f"asking for offsets of {name}",
    )
    if sorted(found) != buckets:
        raise FlussUnavailableError(
            f"Fluss at {target.address} knows the offsets of {len(found)} of {len(buckets)} buckets of "
            f"{name}: a tablet server is missing, try again"
        )
    return found


async def read_current(
    connection: fluss.FlussConnection, table: fluss.FlussTable, target: FlussTarget
) -> pa.Table:
    """Return the rows of `latest` as they are: rows of `LATEST`, in no order.

    Raises:
        FlussStoreError: Fluss did not answer.
    """
    table_id = table.get_table_info().table_id
    parts = []
    for bucket in range(CURRENT_BUCKETS):
        scan = table.new_scan().limit(_ALL_PRODUCTS)
        scanner = scan.create_bucket_batch_scanner(fluss.TableBucket(table_id, bucket))
        parts.append(await answer(scanner.to_arrow(), target, f"reading {CURRENT}"))
    return pa.concat_tables(parts).cast(LATEST)


_ALL_PRODUCTS: Final = 1_000_000
"""More rows than `latest` can have: one for each product."""
