"""What is asked of product-days of trades and candles, in SQL over the tables as they are.

Each check is one query that returns what is wrong, for all product-days of a run at once: they are the rows
of the relation `scope`. Its first two columns name the product-day; one that is not named passes. Nothing
here is shared with the code that makes the tables: sums are DuckDB's exact decimals. The assets yield the
results themselves, because separate checks are lost where several partitions run at once.

Blocking are the checks whose failure would make what is computed downstream wrong. Lost counts are an error
but not blocking: a sealed day is complete by its ids, whatever was counted on its way.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final

import dagster as dg
import duckdb
import pyarrow as pa

from lakehouse.market.time import MINUTE_US, to_datetime
from lakehouse.reconciliation.candles import AGGREGATES, TOLD
from lakehouse.stores.duplicates import duplicates
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import CANDLES_1M, NOT_TOLD, OF_EXCHANGE, TIME, TRADES, Table
from lakehouse.stores.seals import edges_of_days
from lakehouse.stores.settled import settled_days
from streaming.sealing.due import newest_event_us

ProductDay = tuple[str, date]

_SHOWN = 10
_ROWS_AT_ONCE = 10_000
_END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Scope:
    """The product-day that is checked, and what is known of it."""

    product: str
    day: date
    sealed: bool
    settled: bool
    """Sealed, or its candles were fetched from the exchange."""
    first_id: int
    last_id: int
    edges: Sequence[int]
    """Known ids right before and after the day."""
    until: datetime
    """Minutes that start before this are compared: all of a settled day; of a live one those that both the
    archive and the candles have had the time to commit."""
    duplicates: int
    """Trades of this product-day that came through the log to the archive and were there already."""


_SCOPE: Final = pa.schema(
    {
        "product": pa.string(),
        "day": pa.date32(),
        "sealed": pa.bool_(),
        "settled": pa.bool_(),
        "first_id": pa.int64(),
        "last_id": pa.int64(),
        "edges": pa.list_(pa.int64()),
        "until": TIME,
        "duplicates": pa.int64(),
    }
)
"""What the queries see of a `Scope`."""


def scopes(store: IcebergStore, wanted: Iterable[ProductDay], lateness_minutes: int) -> list[Scope]:
    """Read what is known of product-days; manifests and records are read once for all of them."""
    wanted = list(wanted)
    settled, archived = settled_days(store), {(str(s.product), s.day): s for s in store.partitions(TRADES)}
    repeated = duplicates(store)
    newest = newest_event_us(store) or 0
    live_until = to_datetime(max(newest - (lateness_minutes + 1) * MINUTE_US, 0))
    edges = {
        product: edges_of_days(store, product, [day for name, day in wanted if name == product])
        for product in {product for product, _ in wanted}
    }
    found = []
    for product, day in wanted:
        record, stats = settled.get((product, day)), archived.get((product, day))
        first, last = (stats.min_trade_id, stats.max_trade_id) if stats else (None, None)
        found.append(
            Scope(
                product=product,
                day=day,
                sealed=record is not None,
                settled=(product, day) in settled,
                first_id=record.first_id if record else first or 1,
                last_id=record.last_id if record else last or 0,
                edges=edges[product][day],
                until=_END_OF_TIME if (product, day) in settled else live_until,
                duplicates=repeated.get((product, day), 0),
            )
        )
    return found


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


def no_empty_values(table: Table) -> str:
    """Return the query for rows of a table that lack a value that every row has.

    Of candles also that what comes from trades is empty in those of the exchange, and in no others.
    """
    tests = {
        field.name: f"{field.name} IS NULL"
        + (f" OR {field.name} = ''" if str(field.type) == "string" else "")
        for field in table.schema
        if not field.nullable
    }
    if "source" in table.schema.names and set(NOT_TOLD) <= set(table.schema.names):
        tests |= {name: f"({name} IS NULL) <> (source = '{OF_EXCHANGE}')" for name in NOT_TOLD}
    counts = ", ".join(f'count(*) FILTER ({test}) AS "{name}"' for name, test in tests.items())
    # A row whose product or day is empty belongs to no partition: it is everyone's.
    return f"""
        WITH concerned AS (
            SELECT scope.product AS of_product, scope.day AS of_day, t.* FROM scope
            JOIN {table.name} AS t ON t.product = scope.product AND t.day = scope.day
            UNION ALL
            SELECT scope.product, scope.day, t.* FROM scope
            JOIN (SELECT * FROM {table.name} WHERE product IS NULL OR day IS NULL) AS t
                ON (t.product = scope.product OR t.product IS NULL) AND (t.day = scope.day OR t.day IS NULL)
        )
        SELECT * FROM (
            UNPIVOT (SELECT of_product, of_day, {counts} FROM concerned GROUP BY of_product, of_day)
            ON {", ".join(f'"{name}"' for name in tests)} INTO NAME column_name VALUE empty
        ) WHERE empty > 0"""


def no_duplicates(table: Table) -> str:
    """Return the query for keys of a table that are there more than once."""
    key = ", ".join(table.key)
    shown = ", ".join(f"copied.{name}" for name in table.key)
    return f"""
        WITH copied AS (
            SELECT {key}, count(*) AS copies, list(DISTINCT day) AS days FROM {table.name}
            WHERE product IN (SELECT product FROM scope)
                AND day BETWEEN (SELECT min(day) - 1 FROM scope) AND (SELECT max(day) + 1 FROM scope)
            GROUP BY {key} HAVING count(*) > 1
        )
        SELECT scope.product AS of_product, scope.day AS of_day, {shown}, copies FROM scope
        JOIN copied ON copied.product = scope.product AND list_contains(copied.days, scope.day)
        ORDER BY {shown}"""


_MISSING_IDS: Final = """
    WITH near AS (
        SELECT *, unnest([day - 1, day, day + 1]) AS near_day FROM scope
    ), ids AS (
        SELECT DISTINCT near.product, near.day, near.last_id, trade_id AS id FROM near
        JOIN trades ON trades.product = near.product AND trades.day = near.near_day
            AND trade_id BETWEEN near.first_id AND near.last_id
        UNION ALL SELECT product, day, last_id, first_id - 1 FROM scope
    ), steps AS (
        SELECT product, day, id + 1 AS first_missing,
            coalesce(lead(id) OVER (PARTITION BY product, day ORDER BY id), last_id + 1) - 1 AS last_missing
        FROM ids
    )
    SELECT steps.product AS of_product, steps.day AS of_day, first_missing, last_missing FROM steps
    LEFT JOIN gaps_open AS gap ON gap.product = steps.product
        AND gap.first_trade_id <= last_missing AND gap.last_trade_id >= first_missing
    WHERE last_missing >= first_missing
    GROUP BY of_product, of_day, first_missing, last_missing
    HAVING last_missing - first_missing + 1 > coalesce(sum(
            least(gap.last_trade_id, last_missing) - greatest(gap.first_trade_id, first_missing) + 1
        ) FILTER (gap.first_trade_id IS NOT NULL), 0)  -- least and greatest pass over nulls
    ORDER BY first_missing"""

# Of each product-day: `accepted` counts trades as they were published, rows and duplicates as archived.
_LOST_COUNTS: Final = """
    WITH counted AS (
        SELECT product, day, sum(received) AS received, sum(accepted + duplicates + quarantined) AS ended,
            sum(accepted) FILTER (kind = 'trade') AS accepted
        FROM intake SEMI JOIN scope USING (product, day) GROUP BY product, day
    ), archived AS (
        SELECT product, day, count(*) AS streamed FROM trades SEMI JOIN scope USING (product, day)
        WHERE source <> 'backfill' GROUP BY product, day
    ), counts AS (
        SELECT product AS of_product, day AS of_day, coalesce(received, 0) AS received,
            coalesce(ended, 0) AS ended, coalesce(accepted, 0) AS accepted,
            coalesce(streamed, 0) AS streamed, scope.duplicates AS duplicates
        FROM scope LEFT JOIN counted USING (product, day) LEFT JOIN archived USING (product, day)
    )
    SELECT * FROM counts WHERE received <> ended OR accepted <> streamed + duplicates"""

_COMPARED: Final = (
    *("start", "open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume"),
    *("taker_sell_volume", "trade_count", "first_trade_id", "last_trade_id", "is_complete", "revision"),
    *("source", "exchange", "recorded_at"),
)

_FROM_TRADES: Final = f"""
    SELECT product, day, date_trunc('minute', event_time) AS start, {AGGREGATES}
    FROM trades SEMI JOIN scope USING (product, day) GROUP BY ALL"""

_CANDLES_DIFFER: Final = f"""
    WITH known AS (
        SELECT product, day, trade_id AS id FROM trades SEMI JOIN scope USING (product, day)
        UNION SELECT product, day, unnest(edges) FROM scope
    ), islands AS (
        SELECT product, day, min(id) AS first_known, max(id) AS last_known
        FROM (
            SELECT *, id - row_number() OVER (PARTITION BY product, day ORDER BY id) AS island FROM known
        ) GROUP BY product, day, island
    ), computed AS ({_FROM_TRADES}), expected AS (
        SELECT computed.*, islands.first_known IS NOT NULL AS is_complete FROM computed
        LEFT JOIN islands ON islands.product = computed.product AND islands.day = computed.day
            AND first_known <= greatest(first_trade_id - 1, 1) AND last_known >= last_trade_id + 1
        UNION ALL BY NAME
        SELECT product, day, {TOLD}
        FROM exchange_candles SEMI JOIN scope USING (product, day)
            ANTI JOIN (SELECT DISTINCT product, day FROM computed) USING (product, day)
    ), stored AS (SELECT * FROM candles_1m SEMI JOIN scope USING (product, day))
    SELECT scope.product AS of_product, scope.day AS of_day, coalesce(e.start, s.start) AS start,
        CASE WHEN s.start IS NULL THEN 'the candle is missing' WHEN e.start IS NULL THEN 'nothing says so'
            ELSE 'columns differ' END AS problem,
        {", ".join(f"e.{name} AS {name}_expected, s.{name} AS {name}_stored" for name in _COMPARED[1:6])}
    FROM expected AS e
    FULL JOIN stored AS s ON e.product = s.product AND e.day = s.day AND e.start = s.start
    JOIN scope ON scope.product = coalesce(e.product, s.product) AND scope.day = coalesce(e.day, s.day)
    WHERE coalesce(e.start, s.start) < scope.until
        AND ({" OR ".join(f"e.{name} IS DISTINCT FROM s.{name}" for name in _COMPARED)})
    ORDER BY 3"""

_VOLUMES_DIFFER: Final = """
    WITH archived AS (
        SELECT product, day, sum(size) AS volume, sum(price * size) AS quote_volume, count(*) AS trades
        FROM trades JOIN scope USING (product, day)
        WHERE date_trunc('minute', event_time) < scope.until GROUP BY product, day
    ), stored AS (
        SELECT product, day, sum(volume) AS volume, sum(quote_volume) AS quote_volume,
            sum(trade_count) AS trades, sum(taker_buy_volume + taker_sell_volume) AS by_side
        FROM candles_1m JOIN scope USING (product, day)
        WHERE start < scope.until AND source <> 'exchange' GROUP BY product, day
    ), sums AS (
        SELECT product AS of_product, day AS of_day,
            coalesce(archived.volume, 0) AS volume_of_trades, coalesce(stored.volume, 0) AS volume_of_candles,
            coalesce(by_side, 0) AS by_side, coalesce(archived.quote_volume, 0) AS quote_volume_of_trades,
            coalesce(stored.quote_volume, 0) AS quote_volume_of_candles,
            coalesce(archived.trades, 0) AS trades, coalesce(stored.trades, 0) AS trades_of_candles
        FROM scope LEFT JOIN archived USING (product, day) LEFT JOIN stored USING (product, day)
    )
    SELECT * FROM sums
    WHERE volume_of_trades <> volume_of_candles OR quote_volume_of_trades <> quote_volume_of_candles
        OR trades <> trades_of_candles OR by_side <> volume_of_candles"""

_PRICES_OUT_OF_ORDER: Final = """
    SELECT product AS of_product, day AS of_day, start, open, high, low, close
    FROM candles_1m SEMI JOIN scope USING (product, day)
    WHERE NOT (high >= open AND high >= close AND low <= open AND low <= close AND low > 0)
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
        no_duplicates(TRADES),
        "The archive holds a trade twice. With the flink engine it may have come again after a seal had "
        "fetched it: materialize this partition, which drops that copy. If it stays, no commit of ours made "
        "it: look for another writer, and roll the table back to the snapshot before it",
    ),
    Check(
        "no_empty_trade_values",
        "Every required column has a value.",
        no_empty_values(TRADES),
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
        "Every candle equals its trades on all columns, and no minute with trades lacks one. Of a day "
        "without archived trades every candle is one of `exchange_candles`, and none of those is lacking.",
        _CANDLES_DIFFER,
        "The candles are not those of the archived trades, or of `exchange_candles` where no trade is "
        "archived. Materialize this partition again to rebuild them",
    ),
    Check(
        "prices_in_order",
        "high is at least open and close, low at most, and above zero.",
        _PRICES_OUT_OF_ORDER,
        "The candles are damaged. Materialize this partition again to rebuild them",
    ),
    Check(
        "volumes_equal_trades",
        "The day's volume, quote volume and number of trades are the same in trades and the candles that are "
        "made of them, and buyers' and sellers' volume add up to it.",
        _VOLUMES_DIFFER,
        "Volume was lost or doubled. Materialize this partition again to rebuild the candles",
    ),
    Check(
        "no_duplicate_candles",
        "No (product, start) is there twice.",
        no_duplicates(CANDLES_1M),
        "Materialize this partition again to rebuild its candles",
    ),
    Check(
        "no_empty_candle_values",
        "Every required column has a value.",
        no_empty_values(CANDLES_1M),
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
    checks: Sequence[Check], connection: duckdb.DuckDBPyConnection, scope: Sequence[Scope]
) -> dict[ProductDay, list[dg.AssetCheckResult]]:
    """Run the checks on product-days and return the results of each.

    Raises:
        duckdb.Error: a table can't be read.
    """
    connection.register("scope", _relation(scope))
    try:
        found = [(check, _findings(check, connection)) for check in checks]
    finally:
        connection.unregister("scope")
    return {
        (one.product, one.day): [
            _result(check, one, wrong.get((one.product, one.day))) for check, wrong in found
        ]
        for one in scope
    }


def _relation(scope: Sequence[Scope]) -> pa.Table:
    return pa.Table.from_pylist(
        [{name: getattr(one, name) for name in _SCOPE.names} for one in scope], _SCOPE
    )


@dataclass
class _Findings:
    """What a check found of one product-day: how much, and the first of it as text by column."""

    count: int = 0
    first: list[dict[str, str]] = field(default_factory=list)


def _findings(check: Check, connection: duckdb.DuckDBPyConnection) -> dict[ProductDay, _Findings]:
    cursor = connection.execute(check.query)
    columns = [str(column[0]) for column in cursor.description or []][2:]
    found: dict[ProductDay, _Findings] = defaultdict(_Findings)
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        for product, day, *values in rows:
            here = found[product, day]
            here.count += 1
            if len(here.first) < _SHOWN:
                here.first.append(dict(zip(columns, map(str, values), strict=True)))
    return found


def _result(check: Check, scope: Scope, found: _Findings | None) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {"sealed": scope.sealed}
    if found is None:
        return dg.AssetCheckResult(passed=True, check_name=check.name, metadata=metadata)
    metadata["findings"] = found.count
    metadata["first_findings"] = dg.TableMetadataValue(
        [dg.TableRecord(row) for row in found.first],
        dg.TableSchema(columns=[dg.TableColumn(column) for column in found.first[0]]),
    )
    severity = check.severity if scope.sealed else check.live_severity or check.severity
    return dg.AssetCheckResult(
        passed=False,
        check_name=check.name,
        severity=severity,
        description=f"{scope.product} on {scope.day}: {check.remedy}.",
        metadata=metadata,
    )
