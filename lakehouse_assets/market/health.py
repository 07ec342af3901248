"""The asset `exchange_health`: how well each day was streamed."""

from collections.abc import Sequence
from datetime import date
from typing import Final

import dagster as dg

from lakehouse.home import Home
from lakehouse.metrics.health import SLA_SECONDS, health_rows
from lakehouse.stores.schemas import EXCHANGE_HEALTH, GAPS, INTAKE, QUARANTINE, TRADES
from lakehouse_assets.market.checks import Check, no_duplicates, no_empty_values
from lakehouse_assets.market.table_asset import Inputs, Metadata, table_asset

_AGAIN: Final = "Materialize this partition again to count anew"
_SHOWN: Final = (
    *("trades", "streamed", "freshness_p50", "freshness_p99", "freshness_max", "longest_silence"),
    *(
        "gap_ids_found",
        "gap_ids_filled",
        "gap_ids_unfillable",
        "late",
        "duplicates",
        "quarantined",
        "sla_met",
    ),
)
_FRESHNESS: Final = [(TRADES, name) for name in ("event_time", "received_at", "spine_offset")]
_GAP_IDS: Final = [(GAPS, name) for name in ("first_trade_id", "last_trade_id", "status")]

_LINEAGE: Final = {
    "product": [(TRADES, "product")],
    "day": [(TRADES, "day")],
    "trades": [(TRADES, "trade_id")],
    "streamed": [(TRADES, "spine_offset")],
    **dict.fromkeys(("freshness_p50", "freshness_p99", "freshness_max", "sla_met"), _FRESHNESS),
    **dict.fromkeys(("gap_ids_found", "gap_ids_filled", "gap_ids_unfillable"), _GAP_IDS),
    "longest_silence": [(TRADES, "received_at")],
    "late": [(TRADES, "late")],
    "duplicates": [(INTAKE, "duplicates")],
    "quarantined": [(QUARANTINE, "product"), (QUARANTINE, "day")],
    "exchange": [(TRADES, "exchange")],
    "recorded_at": [(TRADES, "recorded_at"), (INTAKE, "recorded_at")],
}


def health_asset(partitions: dg.PartitionsDefinition[str], home: Home) -> dg.AssetsDefinition:
    """Return the asset, partitioned by product and day."""
    return table_asset(
        EXCHANGE_HEALTH,
        _made,
        HEALTH_CHECKS,
        partitions=partitions,
        home=home,
        description=(
            "Counted from `trades`, `quotes`, `gaps`, `intake` and `quarantine`. Freshness is that of what "
            "came through the log, trades fetched to fill a gap included; what a seal or a backfill fetched "
            "says nothing of it. A day that goes on is counted as far as it has come."
        ),
        layer="metrics",
        sources=[TRADES],
        lineage=_LINEAGE,
        reads=TRADES,
    )


def _made(inputs: Inputs, product: str, days: Sequence[date]) -> dict[date, Metadata]:
    with inputs.connect() as connection:
        rows = health_rows(connection, [(product, day) for day in days])
    before = inputs.store.snapshot_id(EXCHANGE_HEALTH)
    snapshot_id = inputs.store.replace_days(EXCHANGE_HEALTH, product, days, rows)
    made: dict[date, Metadata] = {
        day: {
            "dagster/partition_row_count": 0,
            "snapshot_id": str(snapshot_id),
            "changed": snapshot_id != before,
        }
        for day in days
    }
    for row in rows.to_pylist():
        shown = {name: row[name] for name in _SHOWN if row[name] is not None}
        made[row["day"]] |= {"dagster/partition_row_count": 1, **shown}
    return made


HEALTH_CHECKS: Final = (
    Check(
        "sla_met",
        f"99 % of the trades that were streamed were here within {SLA_SECONDS} seconds.",
        """
        SELECT h.product AS of_product, h.day AS of_day, freshness_p50, freshness_p99, freshness_max,
            longest_silence
        FROM scope JOIN exchange_health AS h ON h.product = scope.product AND h.day = scope.day
        WHERE NOT sla_met""",
        "The market was seen too late. A long silence or a high maximum alone means that the feed was away "
        "and its gaps were filled later; a high median that this machine is too slow or its clock is wrong "
        "(`lakehouse status` shows the lag of each worker)",
        blocking=False,
        severity=dg.AssetCheckSeverity.WARN,
    ),
    Check(
        "gaps_filled",
        "Every trade that was found missing has been filled.",
        """
        SELECT h.product AS of_product, h.day AS of_day, gap_ids_found, gap_ids_filled, gap_ids_unfillable
        FROM scope JOIN exchange_health AS h ON h.product = scope.product AND h.day = scope.day
        WHERE gap_ids_filled < gap_ids_found""",
        "Trades are missing; `gaps_open` lists them. Materialize `trades` for this partition to fetch them. "
        "The exchange doesn't have those that are unfillable: candles beside them stay incomplete",
        blocking=False,
        severity=dg.AssetCheckSeverity.WARN,
    ),
    Check(
        "counts_add_up",
        "Every archived trade is counted, and no part is larger than its whole.",
        """
        WITH archived AS (
            SELECT t.product, t.day, count(*) AS trades FROM scope
            JOIN trades AS t ON t.product = scope.product AND t.day = scope.day
            WHERE scope.sealed GROUP BY ALL
        ), counted AS (
            SELECT h.* FROM scope
            JOIN exchange_health AS h ON h.product = scope.product AND h.day = scope.day
        )
        SELECT coalesce(c.product, archived.product) AS of_product, coalesce(c.day, archived.day) AS of_day,
            archived.trades AS trades_archived, c.trades AS trades_counted, streamed, late,
            gap_ids_found, gap_ids_filled, gap_ids_unfillable
        FROM counted AS c FULL JOIN archived ON archived.product = c.product AND archived.day = c.day
        WHERE archived.trades <> c.trades OR (c.trades IS NULL AND archived.trades > 0)
            OR streamed > c.trades OR late > streamed
            OR gap_ids_filled + gap_ids_unfillable > gap_ids_found""",
        f"Trades came in after the row was made. {_AGAIN}",
    ),
    Check("no_duplicate_rows", "No (product, day) is there twice.", no_duplicates(EXCHANGE_HEALTH), _AGAIN),
    Check("no_empty_values", "Every required column has a value.", no_empty_values(EXCHANGE_HEALTH), _AGAIN),
)
