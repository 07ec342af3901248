"""The asset `liquidity`: what it cost to trade on each day with quotes."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final

import dagster as dg
import pyarrow as pa

from lakehouse.home import Home
from lakehouse.metrics import depth
from lakehouse.metrics.liquidity import COLUMNS, LONGEST_HOLD_US, liquidity_rows
from lakehouse.stores.schemas import BOOK, LIQUIDITY, QUOTES
from lakehouse_assets.market.checks import Check, no_duplicates, no_empty_values
from lakehouse_assets.market.table_asset import Inputs, Metadata, table_asset

_AGAIN: Final = "Materialize this partition again to compute its figures anew"
_FIGURES: Final = ("spread_bps", "imbalance", "bid_depth", "ask_depth", *depth.DEPTHS)

_LINEAGE: Final = {
    **{name: [(QUOTES, name)] for name in ("product", "day", "exchange", "recorded_at", "imbalance")},
    "quotes": [(QUOTES, "spine_offset")],
    "covered": [(QUOTES, "event_time")],
    "spread_bps": [(QUOTES, name) for name in ("bid", "ask", "event_time")],
    "bid_depth": [(QUOTES, name) for name in ("bid", "bid_size", "event_time")],
    "ask_depth": [(QUOTES, name) for name in ("ask", "ask_size", "event_time")],
    "book_minutes": [(BOOK, "event_time")],
    **{column: [(BOOK, name) for name in depth.COLUMNS] for column in depth.DEPTHS},
}


def liquidity_asset(partitions: dg.PartitionsDefinition[str], home: Home) -> dg.AssetsDefinition:
    """Return the asset, partitioned by product and day."""
    return table_asset(
        LIQUIDITY,
        _made,
        LIQUIDITY_CHECKS,
        partitions=partitions,
        home=home,
        description=(
            f"A quote holds until the next one, and for {LONGEST_HOLD_US // 1_000_000} seconds at most: what "
            "is silent for longer counts as not covered. The depth is that of the archived book, replayed, "
            "as it stood at each minute's end. A day that goes on is computed as far as it has come."
        ),
        layer="metrics",
        sources=[QUOTES, BOOK],
        lineage=_LINEAGE,
        reads=QUOTES,
    )


def _made(inputs: Inputs, product: str, days: Sequence[date]) -> dict[date, Metadata]:
    source_id = inputs.store.snapshot_id(QUOTES)
    book_id = inputs.store.snapshot_id(BOOK)

    def quotes(day: date) -> pa.Table:
        return inputs.store.scan(QUOTES, product=product, day=day, columns=COLUMNS, snapshot_id=source_id)

    found: list[pa.Table] = []
    before: tuple[date, pa.Table] | None = None
    for day in days:
        eve = day - timedelta(days=1)
        of_eve = before[1] if before is not None and before[0] == eve else quotes(eve)
        before = day, quotes(day)
        book = inputs.store.in_log_order(BOOK, product, day, depth.COLUMNS, snapshot_id=book_id)
        found.append(liquidity_rows(product, day, before[1], of_eve, depth.depth_figures(day, book)))
    rows = pa.concat_tables(found)
    earlier_id = inputs.store.snapshot_id(LIQUIDITY)
    snapshot_id = inputs.store.replace_days(LIQUIDITY, product, days, rows)
    made: dict[date, Metadata] = {
        day: {
            "dagster/partition_row_count": 0,
            "quotes_snapshot_id": str(source_id),
            "book_snapshot_id": str(book_id),
            "snapshot_id": str(snapshot_id),
            "changed": snapshot_id != earlier_id,
        }
        for day in days
    }
    for row in rows.to_pylist():
        figures = {name: row[name] for name in _FIGURES if row[name] is not None}
        counted = {name: row[name] for name in ("quotes", "covered", "book_minutes")}
        made[row["day"]] |= {"dagster/partition_row_count": 1, **counted, **figures}
    return made


LIQUIDITY_CHECKS: Final = (
    Check(
        "figures_in_range",
        "The covered share lies between 0 and 1, the imbalance between -1 and 1; nothing else is negative.",
        f"""
        SELECT l.product AS of_product, l.day AS of_day, covered, {", ".join(_FIGURES)}
        FROM scope JOIN liquidity AS l ON l.product = scope.product AND l.day = scope.day
        WHERE NOT (covered BETWEEN 0 AND 1 AND coalesce(imbalance, 0) BETWEEN -1 AND 1
            AND coalesce(least(spread_bps, bid_depth, ask_depth, {", ".join(depth.DEPTHS)}), 0) >= 0)""",
        "The quotes or the book can't be right: see their checks for this partition. " + _AGAIN,
    ),
    Check(
        "every_quote_counted",
        "The row counts the quotes that are archived, and a day with quotes has one.",
        """
        WITH archived AS (
            SELECT q.product, q.day, count(*) AS quotes FROM scope
            JOIN quotes AS q ON q.product = scope.product AND q.day = scope.day
            WHERE scope.sealed GROUP BY ALL
        )
        SELECT archived.product AS of_product, archived.day AS of_day, archived.quotes AS quotes_archived,
            l.quotes AS quotes_counted
        FROM archived LEFT JOIN liquidity AS l ON l.product = archived.product AND l.day = archived.day
        WHERE l.quotes IS DISTINCT FROM archived.quotes""",
        f"Quotes came in after the row was made. {_AGAIN}",
    ),
    Check(
        "the_day_is_covered",
        "A quote held for 99 % of a day that is over.",
        """
        SELECT l.product AS of_product, l.day AS of_day, covered
        FROM scope JOIN liquidity AS l ON l.product = scope.product AND l.day = scope.day
        WHERE scope.sealed AND covered < 0.99""",
        "The figures stand for a part of the day only. If `exchange_health` shows a long silence the feed "
        "was away (quotes can't be fetched afterwards); if not, the product is quoted this seldom",
        blocking=False,
        severity=dg.AssetCheckSeverity.WARN,
    ),
    Check("no_duplicate_rows", "No (product, day) is there twice.", no_duplicates(LIQUIDITY), _AGAIN),
    Check("no_empty_values", "Every required column has a value.", no_empty_values(LIQUIDITY), _AGAIN),
)
