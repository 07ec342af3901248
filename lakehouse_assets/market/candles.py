"""The asset `candles_1m`: a product's day of one-minute candles, rebuilt from its archived trades."""

import dagster as dg

from lakehouse.home import Home
from lakehouse.stores.schemas import CANDLES_1M, TRADES
from lakehouse.stores.seals import seals
from lakehouse_assets.market.carrying import CARRY_CHANGES
from lakehouse_assets.market.checks import CANDLE_CHECKS, Scope, check_specs, evaluate
from lakehouse_assets.market.description import GROUP, OWNERS, table_metadata
from lakehouse_assets.operations.stream_topics import topic_key
from lakehouse_assets.partitions import parsed
from lakehouse_assets.resources import Lakehouse, LakehouseDuckDB
from streaming.engines.flink.errors import FlinkUnavailableError
from streaming.engines.rebuilding import Rebuilt

FLINK_RETRIES = 5
FIRST_WAIT_SECONDS = 15


def candles_asset(partitions: dg.PartitionsDefinition[str], home: Home) -> dg.AssetsDefinition:
    """Return the asset, partitioned by product and day."""

    @dg.asset(
        name=CANDLES_1M.name,
        deps=[TRADES.name, topic_key(TRADES.name)],
        partitions_def=partitions,
        description=(
            f"{CANDLES_1M.description} The stream keeps the day that goes on. Materializing a sealed day "
            "rebuilds its candles from one snapshot of `trades` by the engine that writes them, and replaces "
            "those that are there. Candles of a day that isn't sealed are left to the stream."
        ),
        group_name=GROUP,
        owners=OWNERS,
        kinds={"paimon", "parquet"},
        tags={"layer": "candles", "namespace": home.namespace},
        metadata=table_metadata(CANDLES_1M, home),
        check_specs=check_specs(CANDLE_CHECKS, CANDLES_1M.name, partitions),
        automation_condition=CARRY_CHANGES,
        # As `trades`: a day's checks belong to its own run.
        backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=1),
        pool="candles_1m_writer",
        code_version="1",
    )
    def candles_1m(
        context: dg.AssetExecutionContext, lakehouse: Lakehouse, duckdb: LakehouseDuckDB
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        product, day = parsed(context.partition_key)
        with lakehouse.iceberg() as store, lakehouse.paimon() as candles:
            snapshot_id = store.snapshot_id(TRADES)
            sealed = (product, day) in seals(store)
            rebuilt = Rebuilt(changed=False)
            if sealed:
                try:
                    rebuilt = lakehouse.rebuilder(store, candles)(product, day, snapshot_id)
                except FlinkUnavailableError as error:
                    wait = FIRST_WAIT_SECONDS * 2**context.retry_number
                    context.log.warning(f"{error}. Next attempt in {wait} s")
                    raise dg.RetryRequested(max_retries=FLINK_RETRIES, seconds_to_wait=wait) from error
            else:
                context.log.warning(
                    f"{product} on {day} isn't sealed: its candles stay as the stream wrote them. "
                    "Materialize `trades` for this partition once the day is over"
                )
            there = candles.scan(CANDLES_1M, product=product, day=day, columns=["start"])
            metadata = {
                "sealed": sealed,
                "dagster/partition_row_count": there.num_rows,
                "trades_snapshot_id": str(snapshot_id),
                "snapshot_id": str(candles.snapshot_id(CANDLES_1M)),
                "changed": rebuilt.changed,
            }
            if rebuilt.job_id is not None:
                metadata["flink_job_id"] = rebuilt.job_id
            scope = Scope.of(store, product, day, lakehouse.lateness_minutes)
        with duckdb.get_connection() as connection:
            return dg.MaterializeResult(
                metadata=metadata, check_results=evaluate(CANDLE_CHECKS, connection, scope)
            )

    return candles_1m
