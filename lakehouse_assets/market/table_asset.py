"""An asset of product-days of one table: what all of them have in common.

A run may have many partitions. It takes them in batches of one product's days: the table is written once for
a batch, its checks are asked once, and each partition has its own metadata and check results.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any, Final

import dagster as dg
import duckdb as duckdb_library

from lakehouse.home import Home
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import Table
from lakehouse_assets.market.candles import FAILURES_OF_A_DAY
from lakehouse_assets.market.carrying import CARRY_CHANGES
from lakehouse_assets.market.checks import Check, check_specs, evaluate, scopes
from lakehouse_assets.market.description import DAILY, GROUP, OWNERS, column_lineage, table_metadata
from lakehouse_assets.operations.stream_topics import topic_key
from lakehouse_assets.partition_results import (
    PartitionEvent,
    PartitionResult,
    reported,
    together_or_each,
)
from lakehouse_assets.partitions import MOST_DAYS, batches, parsed
from lakehouse_assets.resources import Lakehouse, LakehouseDuckDB
from lakehouse_assets.retries import another_attempt
from streaming.engines.flink.errors import FlinkUnavailableError
from streaming.engines.rebuilding import RebuildDays

MOST_ROWS: Final = 5_000_000
"""Rows of what a batch reads."""

Metadata = dict[str, Any]


@dataclass(frozen=True)
class Inputs:
    """What a batch is made from: the tables, opened."""

    store: IcebergStore
    candles: PaimonStore
    connect: Callable[[], AbstractContextManager[duckdb_library.DuckDBPyConnection]]
    """SQL over all tables as they are when it is called."""
    rebuilder: Callable[[Table], RebuildDays]
    """How the engine rebuilds a table of candles."""


Make = Callable[[Inputs, str, Sequence[date]], Mapping[date, Metadata]]
"""Makes one product's days, ascending, and returns the metadata of each."""


def table_asset(
    table: Table,
    make: Make,
    checks: Sequence[Check],
    *,
    partitions: dg.PartitionsDefinition[str],
    home: Home,
    description: str,
    layer: str,
    sources: Sequence[Table] = (),
    lineage: Mapping[str, Sequence[tuple[Table, str]]] | None = None,
    reads: Table | None = None,
) -> dg.AssetsDefinition:
    """Return the asset of a table, partitioned by product and day.

    Args:
        table: which.
        make: what a materialization does.
        checks: what is asked of each partition after it.
        partitions: product × day.
        home: whose tables.
        description: what a person should know beside the table's own description.
        layer: the tag by which assets are found.
        sources: assets it is made from; none for what the stream writes.
        lineage: columns of the sources that each column comes from.
        reads: a table in Iceberg of which a batch reads all columns: bounds its days.
    """

    @dg.asset(
        name=table.name,
        deps=[dg.AssetKey(source.name) for source in sources] or [topic_key(table.name)],
        partitions_def=partitions,
        description=f"{table.description} {description}",
        group_name=GROUP,
        owners=OWNERS,
        kinds={table.store, "parquet"},
        tags={"layer": layer, "namespace": home.namespace},
        metadata=table_metadata(table, home),
        check_specs=check_specs(checks, table.name, partitions),
        automation_condition=CARRY_CHANGES if sources else None,
        freshness_policy=DAILY,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=f"{table.name}_writer",
        code_version="1",
    )
    def asset(
        context: dg.AssetExecutionContext, lakehouse: Lakehouse, duckdb: LakehouseDuckDB
    ) -> Iterator[PartitionEvent]:
        results: dict[str, PartitionResult] = {}
        failures: dict[str, Exception] = {}
        with lakehouse.iceberg() as store, lakehouse.paimon() as candles:
            inputs = Inputs(
                store, candles, duckdb.get_connection, partial(lakehouse.rebuilder, store, candles)
            )
            sizes = (
                {} if reads is None else {(str(s.product), s.day): s.rows for s in store.partitions(reads)}
            )

            def work(keys: Sequence[str]) -> dict[str, PartitionResult]:
                days = {parsed(key)[1]: key for key in keys}
                product = parsed(keys[0])[0]
                made = make(inputs, product, list(days))
                scope = scopes(store, [(product, day) for day in days], lakehouse.lateness_minutes)
                with duckdb.get_connection() as connection:
                    checked = evaluate(checks, connection, scope)
                rows = (store if table.store == "iceberg" else candles).row_count(table)
                always: Metadata = {"dagster/row_count": rows}
                if lineage:
                    always["dagster/column_lineage"] = column_lineage(lineage)
                return {
                    key: PartitionResult(always | made[day], checked[product, day])
                    for day, key in days.items()
                }

            for batch in batches(context.partition_keys, sizes, MOST_ROWS, MOST_DAYS):
                try:
                    done, failed = together_or_each(batch, work, FAILURES_OF_A_DAY)
                except FlinkUnavailableError as error:
                    raise another_attempt(context, error) from error
                results |= done
                failures |= failed
                context.log.info(f"{len(results) + len(failures)} of {len(context.partition_keys)} days done")
        yield from reported(context, results, failures)

    return asset
