"""What is asked of a product-day of trades and candles, in SQL over the tables as they are.

Each check is one query that returns what is wrong, so an empty answer passes. Nothing here is shared with
the code that makes the tables: sums are DuckDB's exact decimals. The assets yield the results themselves,
because separate checks are lost where several partitions run at once.

Blocking are the checks whose failure would make what is computed downstream wrong. Lost counts are an error
but not blocking: a sealed day is complete by its ids, whatever was counted on its way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final, Self

import dagster as dg
import duckdb

from lakehouse.market.time import MINUTE_US, to_datetime
from lakehouse.stores.duplicates import duplicates
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import CANDLES_1M, TRADES, Table
from lakehouse.stores.seals import known_edges, seals
from streaming.sealing.due import newest_event_us

_SHOWN = 10
_END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Scope:
    """The product-day that is checked, and what is known of it."""

    product: str
    day: date
    sealed: bool
    first_id: int
    last_id: int
    edges: Sequence[int]
    """Known ids right before and after the day."""
    until: datetime
    """Minutes that start before this are compared: all of a sealed day; of a live one those that both the
    archive and the candles have had the time to commit."""
    duplicates: int
    """Trades of this product-day that came through the log to the archive and were there already."""

    @classmethod
    def of(cls, store: IcebergStore, product: str, day: date, lateness_minutes: int) -> Self:
        """Read what is known of a product-day."""
        record = seals(store).get((product, day))
        here = [s for s in store.partitions(TRADES) if (s.product, s.day) == (product, day)]
        first, last = (here[0].min_trade_id, here[0].max_trade_id) if here else (None, None)
        newest = newest_event_us(store) or 0
        live_until = to_datetime(max(newest - (lateness_minutes + 1) * MINUTE_US, 0))
        return cls(
            product=product,
            day=day,
            sealed=record is not None,
            first_id=record.first_id if record else first or 1,
            last_id=record.last_id if record else last or 0,
            edges=known_edges(store, product, day),
            until=_END_OF_TIME if record else live_until,
            duplicates=duplicates(store).get((product, day), 0),
        )

    @property
    def parameters(self) -> dict[str, Any]:
        """What the queries may name."""
        return {
            "product": self.product,
            "day": self.day,
            "first_id": self.first_id,
            "last_id": self.last_id,
            "edges": list(self.edges),
            "until": self.until,
            "duplicates": self.duplicates,
        }


@dataclass(frozen=True)
class Check:
    """One check: a query that returns what is wrong, and what to do when it does."""

    name: str
    description: str
    query: str
    remedy: str
    blocking: bool = True
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
    live_severity: dg.AssetCheckSeverity | None = None
    """Severity while the day goes on, where that differs."""


def _no_empty_values(table: Table) -> str:
    tests = {
        field.name: f"{field.name} IS NULL"
        + (f" OR {field.name} = ''" if str(field.type) == "string" else "")
        for field in table.schema
        if not field.nullable
    }
    counts = ", ".join(f'count(*) FILTER ({test}) AS "{name}"' for name, test in tests.items())
    # A row whose product or day is empty belongs to no partition: it is everyone's.
    return f"""
        SELECT * FROM (
            UNPIVOT (
                SELECT {counts} FROM {table.name}
                WHERE (product = $product OR product IS NULL) AND (day = $day OR day IS NULL)
            ) ON {", ".join(f'"{name}"' for name in tests)} INTO NAME column_name VALUE empty
        ) WHERE empty > 0"""


def _no_duplicates(table: Table) -> str:
    key = ", ".join(table.key)
    return f"""
        SELECT {key}, count(*) AS copies FROM {table.name}
        WHERE product = $product AND day BETWEEN $day - 1 AND $day + 1
        GROUP BY {key} HAVING count(*) > 1 AND bool_or(day = $day) ORDER BY {key}"""


_MISSING_IDS: Final = """
    WITH ids AS (
        SELECT DISTINCT trade_id AS id FROM trades
        WHERE product = $product AND day BETWEEN $day - 1 AND $day + 1
            AND trade_id BETWEEN $first_id AND $last_id
        UNION ALL SELECT $first_id - 1
    ), steps AS (
        SELECT id + 1 AS first_missing,
            coalesce(lead(id) OVER (ORDER BY id), $last_id + 1) - 1 AS last_missing
        FROM ids
    )
    SELECT first_missing, last_missing FROM steps
    LEFT JOIN gaps_open AS gap ON gap.product = $product
        AND gap.first_trade_id <= last_missing AND gap.last_trade_id >= first_missing
    WHERE last_missing >= first_missing
    GROUP BY first_missing, last_missing
    HAVING last_missing - first_missing + 1 > coalesce(sum(
            least(gap.last_trade_id, last_missing) - greatest(gap.first_trade_id, first_missing) + 1
        ) FILTER (gap.first_trade_id IS NOT NULL), 0)  -- least and greatest pass over nulls
    ORDER BY first_missing"""

# One product-day: `accepted` counts trades as they were published, rows and duplicates as they were archived.
_LOST_COUNTS: Final = """
    WITH counted AS (
        SELECT coalesce(sum(received), 0) AS received,
            coalesce(sum(accepted + duplicates + quarantined), 0) AS ended,
            coalesce(sum(accepted) FILTER (kind = 'trade'), 0) AS accepted
        FROM intake WHERE product = $product AND day = $day
    ), archived AS (
        SELECT count(*) AS streamed FROM trades
        WHERE product = $product AND day = $day AND source <> 'backfill'
    )
    SELECT received, ended, accepted, streamed, $duplicates AS duplicates FROM counted, archived
    WHERE received <> ended OR accepted <> streamed + $duplicates"""

_COMPARED: Final = (
    *("start", "open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume"),
    *("taker_sell_volume", "trade_count", "first_trade_id", "last_trade_id", "is_complete", "revision"),
    *("exchange", "recorded_at"),
)

_FROM_TRADES: Final = """
    SELECT date_trunc('minute', event_time) AS start,
        arg_min(price, trade_id) AS open, max(price) AS high, min(price) AS low,
        arg_max(price, trade_id) AS close,
        CAST(sum(size) AS DECIMAL(38, 8)) AS volume,
        CAST(sum(price * size) AS DECIMAL(38, 16)) AS quote_volume,
        CAST(coalesce(sum(size) FILTER (taker_side = 'buy'), 0) AS DECIMAL(38, 8)) AS taker_buy_volume,
        CAST(coalesce(sum(size) FILTER (taker_side = 'sell'), 0) AS DECIMAL(38, 8)) AS taker_sell_volume,
        count(*) AS trade_count, min(trade_id) AS first_trade_id, max(trade_id) AS last_trade_id,
        count(*) FILTER (late) AS revision, arg_max(exchange, trade_id) AS exchange,
        max(recorded_at) AS recorded_at
    FROM trades WHERE product = $product AND day = $day GROUP BY ALL"""

_CANDLES_DIFFER: Final = f"""
    WITH known AS (
        SELECT trade_id AS id FROM trades WHERE product = $product AND day = $day
        UNION SELECT unnest(CAST($edges AS BIGINT[]))
    ), islands AS (
        SELECT min(id) AS first_known, max(id) AS last_known
        FROM (SELECT id, id - row_number() OVER (ORDER BY id) AS island FROM known) GROUP BY island
    ), computed AS ({_FROM_TRADES}), expected AS (
        SELECT computed.*, islands.first_known IS NOT NULL AS is_complete FROM computed
        LEFT JOIN islands ON first_known <= greatest(first_trade_id - 1, 1)
            AND last_known >= last_trade_id + 1
    ), stored AS (SELECT * FROM candles_1m WHERE product = $product AND day = $day)
    SELECT coalesce(e.start, s.start) AS start,
        CASE WHEN s.start IS NULL THEN 'the candle is missing' WHEN e.start IS NULL THEN 'there are no trades'
            ELSE 'columns differ' END AS problem,
        {", ".join(f"e.{name} AS {name}_of_trades, s.{name} AS {name}_stored" for name in _COMPARED[1:6])}
    FROM expected AS e FULL JOIN stored AS s ON e.start = s.start
    WHERE coalesce(e.start, s.start) < $until
        AND ({" OR ".join(f"e.{name} IS DISTINCT FROM s.{name}" for name in _COMPARED)})
    ORDER BY 1"""

_VOLUMES_DIFFER: Final = """
    WITH archived AS (
        SELECT coalesce(sum(size), 0) AS volume, coalesce(sum(price * size), 0) AS quote_volume,
            count(*) AS trades
        FROM trades
        WHERE product = $product AND day = $day AND date_trunc('minute', event_time) < $until
    ), stored AS (
        SELECT coalesce(sum(volume), 0) AS volume, coalesce(sum(quote_volume), 0) AS quote_volume,
            coalesce(sum(trade_count), 0) AS trades,
            coalesce(sum(taker_buy_volume + taker_sell_volume), 0) AS by_side
        FROM candles_1m WHERE product = $product AND day = $day AND start < $until
    )
    SELECT archived.volume AS volume_of_trades, stored.volume AS volume_of_candles, stored.by_side,
        archived.quote_volume AS quote_volume_of_trades, stored.quote_volume AS quote_volume_of_candles,
        archived.trades, stored.trades AS trades_of_candles
    FROM archived, stored
    WHERE archived.volume <> stored.volume OR archived.quote_volume <> stored.quote_volume
        OR archived.trades <> stored.trades OR stored.by_side <> stored.volume"""

_PRICES_OUT_OF_ORDER: Final = """
    SELECT start, open, high, low, close FROM candles_1m
    WHERE product = $product AND day = $day
        AND NOT (high >= open AND high >= close AND low <= open AND low <= close AND low > 0)
    ORDER BY start"""

TRADE_CHECKS: Final = (
    Check(
        "ids_contiguous_or_in_gaps",
        "Every id between the day's first and last is archived, or is listed in `gaps` as not filled.",
        _MISSING_IDS,
        "Trades are missing and nothing says so. Materialize this partition again: it fetches them, or lists "
        "them as unfillable",
    ),
    Check(
        "no_duplicate_trades",
        "No (product, trade_id) is archived twice.",
        _no_duplicates(TRADES),
        "The archive holds a trade twice. With the flink engine it may have come again after a seal had "
        "fetched it: materialize this partition, which drops that copy. If it stays, no commit of ours made "
        "it: look for another writer, and roll the table back to the snapshot before it",
    ),
    Check(
        "no_empty_trade_values",
        "Every required column has a value.",
        _no_empty_values(TRADES),
        "The table was written by another program or its files are damaged: roll it back to the snapshot "
        "before",
    ),
    Check(
        "trade_counts_conserved",
        "Trades accepted by the feed = rows that came through the log + duplicates that the archive dropped; "
        "and inputs received = accepted + duplicates + quarantined.",
        _LOST_COUNTS,
        "Something was lost or doubled between the feed and the archive. If the archive lags (`lakehouse "
        "status`), wait and check again; else compare `intake` and `trades` by spine_offset",
        blocking=False,
        # The two tables are committed one after the other, so a live day may be between them.
        live_severity=dg.AssetCheckSeverity.WARN,
    ),
)

CANDLE_CHECKS: Final = (
    Check(
        "candles_equal_trades",
        "Every candle equals its trades on all columns, and no minute with trades lacks one.",
        _CANDLES_DIFFER,
        "The candles are not those of the archived trades. Materialize this partition again to rebuild them",
    ),
    Check(
        "prices_in_order",
        "high is at least open and close, low at most, and above zero.",
        _PRICES_OUT_OF_ORDER,
        "The candles are damaged. Materialize this partition again to rebuild them",
    ),
    Check(
        "volumes_equal_trades",
        "The day's volume, quote volume and number of trades are the same in candles and trades, and buyers' "
        "and sellers' volume add up to it.",
        _VOLUMES_DIFFER,
        "Volume was lost or doubled. Materialize this partition again to rebuild the candles",
    ),
    Check(
        "no_duplicate_candles",
        "No (product, start) is there twice.",
        _no_duplicates(CANDLES_1M),
        "Materialize this partition again to rebuild its candles",
    ),
    Check(
        "no_empty_candle_values",
        "Every required column has a value.",
        _no_empty_values(CANDLES_1M),
        "The table was written by another program. Materialize this partition again to rebuild its candles",
    ),
)


def check_specs(
    checks: Sequence[Check], asset: str, partitions: dg.PartitionsDefinition[str]
) -> list[dg.AssetCheckSpec]:
    """Return the checks as Dagster knows them: of one product-day, so that none speaks for another."""
    return [
        dg.AssetCheckSpec(
            check.name,
            asset=asset,
            description=check.description,
            blocking=check.blocking,
            partitions_def=partitions,
        )
        for check in checks
    ]


def evaluate(
    checks: Sequence[Check], connection: duckdb.DuckDBPyConnection, scope: Scope
) -> list[dg.AssetCheckResult]:
    """Run the checks on a product-day and return their results.

    Raises:
        duckdb.Error: a table can't be read.
    """
    return [_evaluated(check, connection, scope) for check in checks]


def _evaluated(check: Check, connection: duckdb.DuckDBPyConnection, scope: Scope) -> dg.AssetCheckResult:
    named = {name: value for name, value in scope.parameters.items() if f"${name}" in check.query}
    cursor = connection.execute(check.query, named)
    columns = [str(column[0]) for column in cursor.description or []]
    wrong = cursor.fetchmany(_SHOWN)
    metadata: dict[str, Any] = {"sealed": scope.sealed}
    if not wrong:
        return dg.AssetCheckResult(passed=True, check_name=check.name, metadata=metadata)
    metadata["findings"] = len(wrong) + len(cursor.fetchall())
    metadata["first_findings"] = dg.TableMetadataValue(
        [dg.TableRecord(dict(zip(columns, map(str, row), strict=True))) for row in wrong],
        dg.TableSchema(columns=[dg.TableColumn(column) for column in columns]),
    )
    severity = check.severity if scope.sealed else check.live_severity or check.severity
    return dg.AssetCheckResult(
        passed=False,
        check_name=check.name,
        severity=severity,
        description=f"{scope.product} on {scope.day}: {check.remedy}.",
        metadata=metadata,
    )
