"""The asset `exchange_candles`: the exchange's own candles of product-days whose trades can't be had."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, Final

import dagster as dg
import pyarrow as pa

from lakehouse.home import Home
from lakehouse.market.time import to_iso
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import EXCHANGE_CANDLES
from lakehouse_assets.market.checks import (
    Check,
    check_specs,
    evaluate,
    no_duplicates,
    no_empty_values,
    scopes,
)
from lakehouse_assets.market.days_from_exchange import RETRIED, each_day
from lakehouse_assets.market.description import GROUP, OWNERS, table_metadata
from lakehouse_assets.market.own_candles import own_candles
from lakehouse_assets.partition_results import PartitionEvent, PartitionResult, reported
from lakehouse_assets.partitions import parsed
from lakehouse_assets.plots import candles_plot
from lakehouse_assets.resources import Lakehouse, LakehouseDuckDB
from lakehouse_assets.retries import another_attempt
from streaming.sealing.day import Origin
from streaming.sealing.due import day_end_us


class NotFetchedError(ValueError):
    """A day's candles can't be fetched; the text says why and what to do."""


@dataclass(frozen=True)
class _Fetched:
    rows: pa.Table
    """The day's rows as they are in the table now."""
    changed: bool


def exchange_candles_asset(partitions: dg.PartitionsDefinition[str], home: Home) -> dg.AssetsDefinition:
    """Return the asset, partitioned by product and day."""

    @dg.asset(
        name=EXCHANGE_CANDLES.name,
        partitions_def=partitions,
        description=(
            f"{EXCHANGE_CANDLES.description} For days whose trades can't be had: `candles_1m` takes a day of "
            "which no trade is archived from here, and says so in its rows. Nothing materializes this by "
            "itself: choose partitions and launch a backfill. A day that isn't over is refused. Fetching a "
            "day again replaces what the exchange has corrected, and changes nothing else."
        ),
        group_name=GROUP,
        owners=OWNERS,
        kinds={"iceberg", "parquet"},
        tags={"layer": "archive", "namespace": home.namespace},
        metadata=table_metadata(EXCHANGE_CANDLES, home),
        check_specs=check_specs(EXCHANGE_CANDLE_CHECKS, EXCHANGE_CANDLES.name, partitions),
        # One run a product: a day is five requests, and the exchange's rate limit is shared by all runs.
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=f"{EXCHANGE_CANDLES.name}_writer",
        code_version="1",
    )
    def exchange_candles(
        context: dg.AssetExecutionContext, lakehouse: Lakehouse, duckdb: LakehouseDuckDB
    ) -> Iterator[PartitionEvent]:
        with lakehouse.iceberg() as store:
            fetch = partial(_fetched, context, lakehouse, store)
            try:
                fetched, failures = asyncio.run(each_day(context, lakehouse, store, fetch))
            except RETRIED as error:
                raise another_attempt(context, error, "What was fetched is kept") from error
            results = _checked(fetched, lakehouse, duckdb, store)
        yield from reported(context, results, failures)

    return exchange_candles


async def _fetched(
    context: dg.AssetExecutionContext,
    lakehouse: Lakehouse,
    store: IcebergStore,
    origin: Origin | None,
    product: str,
    day: date,
    clock_us: int,
) -> _Fetched:
    """Fetch a day and write it.

    Raises:
        NotFetchedError: it can't be had.
        RestError: the exchange can't be asked.
    """
    rows = await _asked(origin, product, day, clock_us, lakehouse.lateness_minutes)
    done = _written(store, product, day, rows)
    context.log.info(f"{product} on {day}: {done.rows.num_rows} candles")
    return done


async def _asked(
    origin: Origin | None, product: str, day: date, clock_us: int, lateness_minutes: int
) -> pa.Table:
    """Return the exchange's candles of a day as rows of the table, fetched now.

    Raises:
        NotFetchedError: the day isn't over, or there is nobody to ask.
        RestError: the exchange can't be asked.
    """
    if origin is None:
        raise NotFetchedError("a recording has no candles of its own: set LAKEHOUSE_FEED to an exchange")
    end_us = day_end_us(day, lateness_minutes)
    if clock_us < end_us:
        raise NotFetchedError(
            f"{product} on {day} isn't over: event time has come to {to_iso(clock_us)}, and candles of the "
            f"whole day can be had from {to_iso(end_us)} on (midnight plus LAKEHOUSE_LATENESS_MINUTES)"
        )
    own = await own_candles(origin, product, [day])
    count = own.rows.num_rows
    fetched_at = pa.scalar(datetime.now(UTC), EXCHANGE_CANDLES.schema.field("recorded_at").type)
    columns = {name: own.rows[name] for name in own.rows.column_names} | {
        "product": pa.repeat(product, count),
        "exchange": pa.repeat(own.exchange.name.lower(), count),
        "recorded_at": pa.repeat(fetched_at, count),
    }
    return pa.table({name: columns[name] for name in EXCHANGE_CANDLES.schema.names})


def _written(store: IcebergStore, product: str, day: date, rows: pa.Table) -> _Fetched:
    """Make rows the day's content; a candle that is there already as it is keeps the time it was fetched.

    Raises:
        NotFetchedError: the exchange has none any more, and the table has.
    """
    with store.lock(EXCHANGE_CANDLES):
        there = store.scan(EXCHANGE_CANDLES, product=product, day=day).sort_by("start").to_pylist()
        if there and not rows.num_rows:
            raise NotFetchedError(
                f"the exchange has no candles of {product} on {day} any more: the {len(there)} that were "
                "fetched before stay"
            )
        known_since = {_said(row): row["recorded_at"] for row in there}
        found = [
            row | {"recorded_at": known_since.get(_said(row), row["recorded_at"])} for row in rows.to_pylist()
        ]
        wanted = pa.Table.from_pylist(found, EXCHANGE_CANDLES.schema)
        changed = found != there
        if changed:
            store.replace(EXCHANGE_CANDLES, product, day, wanted)
        return _Fetched(wanted, changed)


def _said(row: Mapping[str, object]) -> tuple[object, ...]:
    return tuple(value for name, value in row.items() if name != "recorded_at")


def _checked(
    fetched: Mapping[str, _Fetched], lakehouse: Lakehouse, duckdb: LakehouseDuckDB, store: IcebergStore
) -> dict[str, PartitionResult]:
    """Check days as they are in the table now, and say what was fetched."""
    scope = scopes(store, [parsed(key) for key in fetched], lakehouse.lateness_minutes)
    with duckdb.get_connection() as connection:
        checked = evaluate(EXCHANGE_CANDLE_CHECKS, connection, scope)
    total = store.row_count(EXCHANGE_CANDLES)
    newest = max(fetched, default="")
    results = {}
    for key, done in fetched.items():
        metadata: dict[str, Any] = {
            "dagster/partition_row_count": done.rows.num_rows,
            "dagster/row_count": total,
            "snapshot_id": str(store.snapshot_id(EXCHANGE_CANDLES)),
            "changed": done.changed,
        }
        if key == newest:
            metadata["plot"] = candles_plot(key, done.rows)
        results[key] = PartitionResult(metadata, checked[parsed(key)])
    return results


_AGAIN: Final = "Materialize this partition again to fetch it anew"

EXCHANGE_CANDLE_CHECKS: Final = (
    Check(
        "prices_in_order",
        "high is at least open and close, low at most, and above zero; no volume is negative.",
        """
        SELECT c.product AS of_product, c.day AS of_day, start, open, high, low, close, volume
        FROM scope JOIN exchange_candles AS c ON c.product = scope.product AND c.day = scope.day
        WHERE NOT (high >= open AND high >= close AND low <= open AND low <= close AND low > 0
            AND volume >= 0)
        ORDER BY start""",
        f"The exchange sent candles that can't be right. {_AGAIN}; if it stays, take them back: without them "
        "the day has no candles, which is better than wrong ones",
    ),
    Check(
        "minutes_of_the_day",
        "Every candle starts with a minute of its day.",
        """
        SELECT c.product AS of_product, c.day AS of_day, start
        FROM scope JOIN exchange_candles AS c ON c.product = scope.product AND c.day = scope.day
        WHERE CAST(start AS DATE) <> c.day OR date_trunc('minute', start) <> start
        ORDER BY start""",
        f"The exchange sent candles of other intervals than were asked for. {_AGAIN}",
    ),
    Check(
        "no_duplicate_candles", "No (product, start) is there twice.", no_duplicates(EXCHANGE_CANDLES), _AGAIN
    ),
    Check(
        "no_empty_candle_values",
        "Every required column has a value.",
        no_empty_values(EXCHANGE_CANDLES),
        f"The table was written by another program. {_AGAIN}",
    ),
)
