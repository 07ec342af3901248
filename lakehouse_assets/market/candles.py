"""The asset `candles_1m`: product-days of one-minute candles, of archived trades or the exchange's own."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import dagster as dg
import duckdb as duckdb_library
import pyarrow.compute as pc

from lakehouse.candles.wide import SumTooLargeError
from lakehouse.home import Home
from lakehouse.market.time import DAY_US, day_start_us
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, EXCHANGE_CANDLES, OF_EXCHANGE, TRADES
from lakehouse.stores.settled import settled_days
from lakehouse_assets.market.carrying import CARRY_EITHER
from lakehouse_assets.market.checks import CANDLE_CHECKS, check_specs, evaluate, scopes
from lakehouse_assets.market.description import DAILY, GROUP, OWNERS, column_lineage, table_metadata
from lakehouse_assets.operations.stream_topics import topic_key
from lakehouse_assets.partition_results import (
    PartitionEvent,
    PartitionResult,
    reported,
    together_or_each,
)
from lakehouse_assets.partitions import MOST_DAYS, MOST_TRADES, batches, parsed
from lakehouse_assets.plots import candles_plot
from lakehouse_assets.resources import Lakehouse, LakehouseDuckDB
from lakehouse_assets.retries import another_attempt
from streaming.engines.flink.errors import FlinkUnavailableError, JobFailedError, StatementError
from streaming.engines.rebuilding import Rebuilt

FAILURES_OF_A_DAY = (
    OSError,
    ValueError,
    SumTooLargeError,
    StatementError,
    JobFailedError,
    duckdb_library.Error,
)
"""What may be wrong with one day's files or values, and stop no other day."""

_LINEAGE: Final = {
    **{name: [name] for name in ("product", "day", "exchange", "recorded_at")},
    "start": ["event_time"],
    **{name: ["price", "trade_id"] for name in ("open", "close")},
    **{name: ["price"] for name in ("high", "low")},
    "volume": ["size"],
    "quote_volume": ["price", "size"],
    **{name: ["size", "taker_side"] for name in ("taker_buy_volume", "taker_sell_volume")},
    **{name: ["trade_id"] for name in ("trade_count", "first_trade_id", "last_trade_id", "is_complete")},
    "source": ["trade_id"],
    "revision": ["late"],
}
CANDLE_LINEAGE: Final = column_lineage(
    {name: [(TRADES, source) for source in sources] for name, sources in _LINEAGE.items()}
)
"""The columns of trades that each column of a candle is made of."""

_EXCHANGE_LINEAGE: Final = column_lineage(
    {name: [(EXCHANGE_CANDLES, name)] for name in EXCHANGE_CANDLES.schema.names}
    | {"source": [(EXCHANGE_CANDLES, "start")]}
)
"""The columns of `exchange_candles` that a candle is made of where no trade is archived."""


def candles_asset(partitions: dg.PartitionsDefinition[str], home: Home) -> dg.AssetsDefinition:
    """Return the asset, partitioned by product and day."""

    @dg.asset(
        name=CANDLES_1M.name,
        deps=[TRADES.name, EXCHANGE_CANDLES.name, topic_key(TRADES.name)],
        partitions_def=partitions,
        description=(
            f"{CANDLES_1M.description} The stream keeps the day that goes on. Materializing a sealed day "
            "rebuilds its candles from one snapshot of `trades` by the engine that writes them, and replaces "
            "those that are there. A day of which no trade is archived becomes what `exchange_candles` has "
            "of it: `source` says so, and what the exchange doesn't tell is empty. Candles of a day that is "
            "neither sealed nor fetched are left to the stream."
        ),
        group_name=GROUP,
        owners=OWNERS,
        kinds={"paimon", "parquet"},
        tags={"layer": "candles", "namespace": home.namespace},
        metadata=table_metadata(CANDLES_1M, home),
        check_specs=check_specs(CANDLE_CHECKS, CANDLES_1M.name, partitions),
        automation_condition=CARRY_EITHER,
        freshness_policy=DAILY,
        # One run a product: its days are rebuilt, committed and checked many at once.
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool="candles_1m_writer",
        code_version="1",
    )
    def candles_1m(
        context: dg.AssetExecutionContext, lakehouse: Lakehouse, duckdb: LakehouseDuckDB
    ) -> Iterator[PartitionEvent]:
        results: dict[str, PartitionResult] = {}
        failures: dict[str, Exception] = {}
        with lakehouse.iceberg() as store, lakehouse.paimon() as candles:
            sizes = {(str(stats.product), stats.day): stats.rows for stats in store.partitions(TRADES)}
            for batch in batches(context.partition_keys, sizes, MOST_TRADES, MOST_DAYS):
                try:
                    done, failed = together_or_each(
                        batch,
                        lambda keys: _rebuilt(keys, lakehouse, duckdb, store, candles),
                        FAILURES_OF_A_DAY,
                    )
                except FlinkUnavailableError as error:
                    raise another_attempt(context, error) from error
                results |= done
                failures |= failed
                context.log.info(f"{len(results) + len(failures)} of {len(context.partition_keys)} days done")
                if unsettled := [key for key, result in done.items() if not result.metadata["settled"]]:
                    context.log.warning(
                        f"not sealed: {', '.join(unsettled)}. Their candles stay as the stream wrote them. "
                        "Materialize `trades` for these partitions once the days are over, or "
                        "`exchange_candles` where the trades can't be had"
                    )
        yield from reported(context, results, failures)

    return candles_1m


def _rebuilt(
    keys: Sequence[str],
    lakehouse: Lakehouse,
    duckdb: LakehouseDuckDB,
    store: IcebergStore,
    candles: PaimonStore,
) -> dict[str, PartitionResult]:
    """Rebuild the settled ones of one product's days, ascending, and check them all."""
    wanted = {key: parsed(key) for key in keys}
    product = parsed(keys[0])[0]
    settled = settled_days(store)
    snapshot_id = store.snapshot_id(TRADES)
    days = [day for _, day in wanted.values() if (product, day) in settled]
    rebuilt = lakehouse.rebuilder(store, candles)(product, days, snapshot_id)
    rows = candles.scan(
        CANDLES_1M,
        product=product,
        start_us=day_start_us(parsed(keys[0])[1]),
        end_us=day_start_us(parsed(keys[-1])[1]) + DAY_US,
        columns=["day", "source"],
    )
    counts = Counter(rows["day"].to_pylist())
    told = Counter(rows.filter(pc.equal(rows["source"], OF_EXCHANGE))["day"].to_pylist())
    scope = scopes(store, wanted.values(), lakehouse.lateness_minutes)
    with duckdb.get_connection() as connection:
        checked = evaluate(CANDLE_CHECKS, connection, scope)
    table_rows = candles.row_count(CANDLES_1M)
    results = {}
    for key, (_, day) in wanted.items():
        was = rebuilt.get(day, Rebuilt(changed=False))
        metadata = {
            "sealed": settled.get((product, day)) is not None,
            "settled": (product, day) in settled,
            "dagster/partition_row_count": counts[day],
            "dagster/row_count": table_rows,
            "dagster/column_lineage": _EXCHANGE_LINEAGE if told[day] else CANDLE_LINEAGE,
            "minutes_from_exchange": told[day],
            "trades_snapshot_id": str(snapshot_id),
            "snapshot_id": str(candles.snapshot_id(CANDLES_1M)),
            "changed": was.changed,
        }
        if was.job_id is not None:
            metadata["flink_job_id"] = was.job_id
        if key == keys[-1]:
            metadata["plot"] = candles_plot(key, candles.scan(CANDLES_1M, product=product, day=day))
        results[key] = PartitionResult(metadata, checked[product, day])
    return results
