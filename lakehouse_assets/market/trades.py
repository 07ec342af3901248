"""The asset `trades`: product-days in the archive. Materializing one seals the day."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import partial

import dagster as dg

from lakehouse.home import Home
from lakehouse.market.time import to_iso
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import TRADES
from lakehouse_assets.market.checks import TRADE_CHECKS, check_specs, evaluate, scopes
from lakehouse_assets.market.days_from_exchange import FAILURES_OF_A_DAY, RETRIED, each_day
from lakehouse_assets.market.description import DAILY, GROUP, OWNERS, table_metadata
from lakehouse_assets.operations.stream_topics import topic_key
from lakehouse_assets.partition_results import PartitionEvent, PartitionResult, reported, together_or_each
from lakehouse_assets.partitions import MOST_DAYS, MOST_TRADES, batches, parsed
from lakehouse_assets.resources import Lakehouse, LakehouseDuckDB
from lakehouse_assets.retries import another_attempt
from streaming.sealing.day import Origin, SealedDay, seal_day
from streaming.sealing.due import day_end_us
from streaming.sealing.spool import Spool

PROGRESS_STEPS = 20


def trades_asset(partitions: dg.PartitionsDefinition[str], home: Home) -> dg.AssetsDefinition:
    """Return the asset, partitioned by product and day."""

    @dg.asset(
        name=TRADES.name,
        deps=[topic_key(TRADES.name)],
        partitions_def=partitions,
        description=(
            f"{TRADES.description} Materializing a day that is over seals it: what is missing is fetched "
            "from the exchange's REST interface (a day that was never streamed is so backfilled), the rows "
            "are sorted into one file, and their count, first and last id and checksum are recorded. "
            "Sealing a sealed day changes nothing. A day that isn't over is only looked at."
        ),
        group_name=GROUP,
        owners=OWNERS,
        kinds={"iceberg", "parquet"},
        tags={"layer": "archive", "namespace": home.namespace},
        metadata=table_metadata(TRADES, home),
        check_specs=check_specs(TRADE_CHECKS, TRADES.name, partitions),
        # One run a product. A day that has to be fetched takes minutes, but what is done stays, and a run
        # that is started again goes on from there: a run for each day would gain nothing and cost its start.
        backfill_policy=dg.BackfillPolicy.single_run(),
        freshness_policy=DAILY,
        pool="trades_writer",
        code_version="1",
    )
    def trades(
        context: dg.AssetExecutionContext, lakehouse: Lakehouse, duckdb: LakehouseDuckDB
    ) -> Iterator[PartitionEvent]:
        results: dict[str, PartitionResult] = {}
        with lakehouse.iceberg() as store:
            seal = partial(_sealed, context, lakehouse, store)
            try:
                sealed, failures = asyncio.run(each_day(context, lakehouse, store, seal))
            except RETRIED as error:
                raise another_attempt(context, error, "What was sealed and fetched is kept") from error
            sizes = {(str(stats.product), stats.day): stats.rows for stats in store.partitions(TRADES)}
            for batch in batches(sealed, sizes, MOST_TRADES, MOST_DAYS):
                done, failed = together_or_each(
                    batch,
                    lambda keys: _checked(keys, sealed, sizes, lakehouse, duckdb, store),
                    FAILURES_OF_A_DAY,
                )
                results |= done
                failures |= failed
        yield from reported(context, results, failures)

    return trades


async def _sealed(
    context: dg.AssetExecutionContext,
    lakehouse: Lakehouse,
    store: IcebergStore,
    origin: Origin | None,
    product: str,
    day: date,
    clock_us: int,
) -> SealedDay | None:
    """Seal the day; None where it isn't over."""
    end_us = day_end_us(day, lakehouse.lateness_minutes)
    if clock_us < end_us:
        context.log.warning(
            f"{product} on {day} isn't over: event time has come to {to_iso(clock_us)}, and it can be "
            f"sealed from {to_iso(end_us)} on (midnight plus LAKEHOUSE_LATENESS_MINUTES). Nothing was "
            "changed; the stream goes on filling the day, and the sensor seals it when it is over"
        )
        return None
    told = 0

    def progress(asked: int, total: int) -> None:
        nonlocal told
        step = asked * PROGRESS_STEPS // max(total, 1)
        if step > told:
            told = step
            context.log.info(f"{product} on {day}: {asked:,} of {total:,} missing trades asked for")

    spool = Spool.of(lakehouse.home, origin.exchange, product, day) if origin else None
    return await seal_day(store, origin, product, day, progress, spool)


def _checked(
    keys: Sequence[str],
    sealed: Mapping[str, SealedDay | None],
    sizes: Mapping[tuple[str, date], int],
    lakehouse: Lakehouse,
    duckdb: LakehouseDuckDB,
    store: IcebergStore,
) -> dict[str, PartitionResult]:
    """Check days as they are in the archive now, and say what was done to them."""
    scope = scopes(store, [parsed(key) for key in keys], lakehouse.lateness_minutes)
    with duckdb.get_connection() as connection:
        checked = evaluate(TRADE_CHECKS, connection, scope)
    results = {}
    for key in keys:
        product, day = parsed(key)
        done = sealed[key]
        if done is not None:
            metadata = _metadata(done)
        else:
            rows = sizes.get((product, day), 0)
            metadata = {"sealed": False, "dagster/partition_row_count": rows}
            metadata["snapshot_id"] = str(store.snapshot_id(TRADES))
        metadata["dagster/row_count"] = sum(sizes.values())
        results[key] = PartitionResult(metadata, checked[product, day])
    return results


def _metadata(sealed: SealedDay) -> dict[str, int | str | bool]:
    record = sealed.record
    ranges = ", ".join(f"{first}-{last}" for first, last in sealed.unfillable[:20])
    return {
        "sealed": True,
        "dagster/partition_row_count": record.rows,
        "first_trade_id": record.first_id,
        "last_trade_id": record.last_id,
        "checksum": record.checksum,
        "snapshot_id": str(sealed.snapshot_id),
        "sealed_at": to_iso(record.sealed_us),
        "streamed_rows": record.streamed,
        "fetched_rows": sealed.fetched,
        "gap_ids_filled": sealed.filled,
        "gap_ids_unfillable": sum(last - first + 1 for first, last in sealed.unfillable),
        "unfillable_ids": ranges or "none",
        "refused_records": sealed.refused,
        "changed": sealed.committed,
    }
