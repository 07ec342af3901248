"""Getting the product-days of a run from the exchange, one after the other."""

from collections.abc import Awaitable, Callable
from datetime import date
from typing import Final, TypeVar

import dagster as dg
import duckdb as duckdb_library

from lakehouse.stores.iceberg import IcebergStore, IcebergStoreError
from lakehouse.stores.iceberg_catalog import CatalogError
from lakehouse.stores.iceberg_commit import CommitConflictError, FilesReplacedError
from lakehouse_assets.partitions import parsed
from lakehouse_assets.resources import Lakehouse
from lakehouse_assets.retries import RETRIES
from streaming.exchanges.contract import RestError
from streaming.sealing.day import Origin
from streaming.sealing.due import event_clock_us

RETRIED: Final = (RestError, CatalogError, CommitConflictError, FilesReplacedError)
"""What passes by itself: an exchange or a catalog that is away, another program that commits."""

FAILURES_OF_A_DAY: Final = (OSError, ValueError, IcebergStoreError, duckdb_library.Error)
"""What may be wrong with one day's files or values, and stop no other day."""

_Got = TypeVar("_Got")

GetDay = Callable[[Origin | None, str, date, int], Awaitable[_Got]]
"""Gets a product's day, from the exchange (None: a recording, which can't be asked) and given how far event
time has come, µs since 1970."""


async def each_day(
    context: dg.AssetExecutionContext, lakehouse: Lakehouse, store: IcebergStore, get: GetDay[_Got]
) -> tuple[dict[str, _Got], dict[str, Exception]]:
    """Get the run's product-days, oldest first; return by partition what was got and what was wrong.

    Raises:
        RETRIED: there are attempts left.
    """
    got: dict[str, _Got] = {}
    failures: dict[str, Exception] = {}
    clocks: dict[str, int] = {}
    async with lakehouse.origin() as origin:
        for key in sorted(context.partition_keys):
            product, day = parsed(key)
            try:
                if product not in clocks:
                    clocks[product] = await event_clock_us(store, origin, product)
                got[key] = await get(origin, product, day, clocks[product])
            except RETRIED as error:
                if context.retry_number < RETRIES:
                    raise
                failures[key] = error
            except FAILURES_OF_A_DAY as error:
                failures[key] = error
            if key in failures:
                context.log.error(f"{product} on {day} could not be had: {failures[key]}")
    return got, failures
