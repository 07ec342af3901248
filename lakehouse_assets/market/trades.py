"""The asset `trades`: a product's day in the archive. Materializing it seals the day."""

import asyncio
from datetime import date

import dagster as dg

from lakehouse.home import Home
from lakehouse.market.time import to_iso
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import TRADES
from lakehouse_assets.market.checks import TRADE_CHECKS, check_specs, evaluate, scopes
from lakehouse_assets.market.description import GROUP, OWNERS, table_metadata
from lakehouse_assets.operations.stream_topics import topic_key
from lakehouse_assets.partitions import parsed
from lakehouse_assets.resources import Lakehouse, LakehouseDuckDB
from streaming.exchanges.contract import RestError
from streaming.sealing.day import SealedDay, seal_day
from streaming.sealing.due import day_end_us, event_clock_us

REST_RETRIES = 5
FIRST_WAIT_SECONDS = 15
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
        # One run a day: an exchange's day takes minutes to fetch, its checks belong to it alone, and one that
        # fails is tried again without the others.
        backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=1),
        pool="trades_writer",
        code_version="1",
    )
    def trades(
        context: dg.AssetExecutionContext, lakehouse: Lakehouse, duckdb: LakehouseDuckDB
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        product, day = parsed(context.partition_key)
        with lakehouse.iceberg() as store:
            try:
                sealed = asyncio.run(_sealed(context, lakehouse, store, product, day))
            except RestError as error:
                wait = FIRST_WAIT_SECONDS * 2**context.retry_number
                context.log.warning(f"{error}. Nothing was changed; next attempt in {wait} s")
                raise dg.RetryRequested(max_retries=REST_RETRIES, seconds_to_wait=wait) from error
            metadata = _live_metadata(store, product, day) if sealed is None else _metadata(sealed)
            metadata["dagster/row_count"] = sum(stats.rows for stats in store.partitions(TRADES))
            scope = scopes(store, [(product, day)], lakehouse.lateness_minutes)
        with duckdb.get_connection() as connection:
            return dg.MaterializeResult(
                metadata=metadata, check_results=evaluate(TRADE_CHECKS, connection, scope)[product, day]
            )

    return trades


async def _sealed(
    context: dg.AssetExecutionContext, lakehouse: Lakehouse, store: IcebergStore, product: str, day: date
) -> SealedDay | None:
    """Seal the day; None where it isn't over."""
    async with lakehouse.origin() as origin:
        clock_us = await event_clock_us(store, origin, product)
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
                context.log.info(f"{asked:,} of {total:,} missing trades asked for")

        return await seal_day(store, origin, product, day, progress)


def _metadata(sealed: SealedDay) -> dict[str, dg.MetadataValue | int | str | bool]:
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


def _live_metadata(
    store: IcebergStore, product: str, day: date
) -> dict[str, dg.MetadataValue | int | str | bool]:
    here = [s for s in store.partitions(TRADES) if (s.product, s.day) == (product, day)]
    return {
        "sealed": False,
        "dagster/partition_row_count": sum(stats.rows for stats in here),
        "snapshot_id": str(store.snapshot_id(TRADES)),
    }
