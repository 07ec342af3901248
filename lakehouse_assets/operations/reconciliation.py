"""The asset `reconciliation`: where two accounts of a product's day disagree, one row a break."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.home import Home
from lakehouse.reconciliation.archive import SEAL_ARCHIVE
from lakehouse.reconciliation.breaks import Break, Kind, break_rows, identity
from lakehouse.reconciliation.candles import LAYERS
from lakehouse.reconciliation.days import OwnCandles, breaks_of_days
from lakehouse.reconciliation.schema_drift import SCHEMA, schema_breaks
from lakehouse.stores.catalog_columns import table_columns
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import CANDLES_1M, OF_EXCHANGE, RECONCILIATION, TRADES
from lakehouse.stores.settled import settled_days
from lakehouse_assets.market.description import DAILY, OWNERS, table_metadata
from lakehouse_assets.market.own_candles import own_candles
from lakehouse_assets.operations.reconciliation_checks import BREAK_CHECKS, EXCHANGE, BreakCheck
from lakehouse_assets.partition_results import PartitionEvent, PartitionResult, reported
from lakehouse_assets.partitions import parsed, product_day_key
from lakehouse_assets.plots import breaks_plot
from lakehouse_assets.resources import Lakehouse, LakehouseDuckDB
from lakehouse_assets.retries import another_attempt
from streaming.exchanges.contract import RestError

GROUP = "operations"


def reconciliation_asset(partitions: dg.PartitionsDefinition[str], home: Home) -> dg.AssetsDefinition:
    """Return the asset, partitioned by product and day."""

    @dg.asset(
        name=RECONCILIATION.name,
        deps=[TRADES.name, CANDLES_1M.name, *(layer.found_table for layer in LAYERS)],
        partitions_def=partitions,
        description=(
            f"{RECONCILIATION.description} Materializing a sealed day compares the log's counts with the "
            "archive, the archive with what was sealed, `candles_1m` with the archived trades and with the "
            "exchange's own candles, longer candles with their minutes, and all tables with their registered "
            "schemas. Comparing again what has not changed changes nothing. A day that has the exchange's "
            "own candles is compared with `exchange_candles` instead, and not with the exchange: that would "
            "compare them with themselves. A day that is neither sealed nor fetched is left out."
        ),
        group_name=GROUP,
        owners=OWNERS,
        kinds={"iceberg", "parquet"},
        tags={"layer": "operations", "namespace": home.namespace},
        metadata=table_metadata(RECONCILIATION, home),
        check_specs=[check.spec(RECONCILIATION.name, partitions) for check in BREAK_CHECKS],
        freshness_policy=DAILY,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool="reconciliation_writer",
        code_version="1",
    )
    def reconciliation(
        context: dg.AssetExecutionContext, lakehouse: Lakehouse, duckdb: LakehouseDuckDB
    ) -> Iterator[PartitionEvent]:
        days: dict[str, list[date]] = defaultdict(list)
        for key in context.partition_keys:
            product, day = parsed(key)
            days[product].append(day)
        drifted = _drifted(lakehouse.home) if lakehouse.is_written else []
        results: dict[str, PartitionResult] = {}
        for product, of_product in days.items():
            if drifted:
                compared = _Compared(
                    {day: [one._replace(day=day) for one in drifted] for day in of_product},
                    frozenset(of_product),
                    frozenset(),
                )
            else:
                try:
                    compared = _compared(lakehouse, duckdb, product, of_product)
                except RestError as error:
                    raise another_attempt(context, error, "Nothing was changed") from error
            with IcebergStore.open(lakehouse.home.create(), [RECONCILIATION]) as store:
                snapshot_id = _written(store, product, compared.breaks)
                rows = store.row_count(RECONCILIATION)
                plot = breaks_plot(product, store.scan(RECONCILIATION, product=product))
            for day in of_product:
                breaks = compared.breaks.get(day)
                key = product_day_key(product, day)
                if breaks is None:
                    context.log.warning(
                        f"{product} on {day} isn't sealed: there is nothing to compare yet. Materialize "
                        "`trades` for this partition once the day is over"
                    )
                    results[key] = PartitionResult({"sealed": False, "dagster/partition_row_count": 0})
                    continue
                results[key] = PartitionResult(
                    # One picture a product: on the newest day, and where there is something to see.
                    _metadata(breaks, rows, snapshot_id, day in compared.sealed)
                    | ({"breaks_by_day": plot} if breaks or day == max(of_product) else {}),
                    [
                        check.evaluated(f"{product} on {day}", breaks)
                        for check in BREAK_CHECKS
                        if (check.comparison == SCHEMA if drifted else _speaks(check, day, compared))
                    ],
                )
        yield from reported(context, results)

    return reconciliation


def _drifted(home: Home) -> list[Break]:
    """Return the columns that are not as registered, as breaks of no day in particular.

    Raises:
        Failure: it is the table of breaks itself, which nothing can be written to then.
    """
    breaks = [
        one
        for columns in table_columns(home)
        for one in schema_breaks(date.min, columns.table.name, columns.registered, columns.found)
    ]
    if any(one.table_name == RECONCILIATION.name for one in breaks):
        told = ", ".join(
            f"{b.column_name} ({b.expected or 'no such column'} became {b.found or 'none'})" for b in breaks
        )
        raise dg.Failure(
            f"the table {RECONCILIATION.name} has other columns than this version writes: {told}. Take the "
            "change back, then materialize this again"
        )
    return breaks


@dataclass(frozen=True)
class _Compared:
    """What came of comparing a product's days."""

    breaks: dict[date, list[Break]]
    """By day that has come to rest."""
    sealed: frozenset[date]
    with_exchange: frozenset[date]
    """Days that were compared with the exchange's own candles."""


def _compared(lakehouse: Lakehouse, duckdb: LakehouseDuckDB, product: str, days: Sequence[date]) -> _Compared:
    """Compare those days that are sealed, or whose candles were fetched from the exchange.

    Raises:
        RestError: the exchange can't be asked.
    """
    with lakehouse.iceberg() as store:
        at_rest = settled_days(store)
        settled = {day: at_rest[product, day] for day in days if (product, day) in at_rest}
        if not settled:
            return _Compared({}, frozenset(), frozenset())
        with duckdb.get_connection() as connection:
            told = {
                day
                for (day,) in connection.execute(
                    f"SELECT DISTINCT day FROM candles_1m WHERE product = ? AND source = '{OF_EXCHANGE}'",
                    [product],
                ).fetchall()
            }
        asked = sorted(settled.keys() - told)
        own = asyncio.run(_own(lakehouse, product, asked)) if asked else None
        # Opened anew: the exchange may have taken longer than files of an expired snapshot stay.
        with duckdb.get_connection() as connection:
            breaks = breaks_of_days(store, connection, product, settled, own)
    found: dict[date, list[Break]] = {day: [] for day in settled}
    for one in breaks:
        found[one.day].append(one)
    sealed = frozenset(day for day, record in settled.items() if record is not None)
    return _Compared(found, sealed, frozenset(asked) if own else frozenset())


async def _own(lakehouse: Lakehouse, product: str, days: Sequence[date]) -> OwnCandles | None:
    """Return the exchange's own candles of days; None for a recording, which can't be asked."""
    async with lakehouse.origin() as origin:
        return None if origin is None else await own_candles(origin, product, days)


def _written(store: IcebergStore, product: str, found: dict[date, list[Break]]) -> int | None:
    """Make the breaks the content of their days; those that were there keep the time they were found."""
    there = store.scan(RECONCILIATION, product=product)
    there = there.filter(pc.is_in(there["day"], pa.array(list(found), pa.date32()))).to_pylist()
    known_since = {identity(row): row["recorded_at"] for row in there}
    breaks = [one for of_day in found.values() for one in of_day]
    rows = break_rows(breaks, product, known_since, datetime.now(UTC))
    return store.replace_days(RECONCILIATION, product, list(found), rows)


def _speaks(check: BreakCheck, day: date, compared: _Compared) -> bool:
    """Tell whether a check's comparison was made on a day."""
    if check.comparison == EXCHANGE:
        return day in compared.with_exchange
    return check.comparison != SEAL_ARCHIVE or day in compared.sealed


def _metadata(breaks: Sequence[Break], rows: int, snapshot_id: int | None, sealed: bool) -> dict[str, Any]:
    counts = Counter(one.kind for one in breaks)
    return {
        "sealed": sealed,
        "dagster/partition_row_count": len(breaks),
        "dagster/row_count": rows,
        **{kind.value.lower(): counts[kind] for kind in Kind},
        "snapshot_id": str(snapshot_id),
    }
