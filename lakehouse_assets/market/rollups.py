"""The assets `candles_1h` and `candles_1d`: candles of sealed days rolled up from their minutes."""

from collections.abc import Sequence
from datetime import date
from functools import partial
from typing import Final

import dagster as dg

from lakehouse.home import Home
from lakehouse.market.time import DAY_US, day_start_us
from lakehouse.reconciliation.candles import ADDED_UP
from lakehouse.stores.schemas import CANDLES_1D, CANDLES_1H, CANDLES_1M, Table
from lakehouse.stores.settled import settled_days
from lakehouse_assets.market.checks import Check, no_duplicates, no_empty_values
from lakehouse_assets.market.table_asset import Inputs, Metadata, table_asset
from streaming.engines.rebuilding import Rebuilt

_AGAIN: Final = "Materialize this partition again to roll its candles up anew"

_INTERVALS: Final = {CANDLES_1H.name: "hour", CANDLES_1D.name: "day"}

_COMPARED: Final = tuple(name for name in CANDLES_1M.schema.names if name not in ("product", "day", "start"))

_LINEAGE: Final = {name: [(CANDLES_1M, name)] for name in CANDLES_1M.schema.names} | {
    "is_complete": [(CANDLES_1M, name) for name in ("is_complete", "first_trade_id", "last_trade_id")],
    "open": [(CANDLES_1M, "open"), (CANDLES_1M, "first_trade_id")],
    "close": [(CANDLES_1M, "close"), (CANDLES_1M, "last_trade_id")],
}


def rollup_assets(partitions: dg.PartitionsDefinition[str], home: Home) -> list[dg.AssetsDefinition]:
    """Return the two assets, partitioned by product and day."""
    return [
        table_asset(
            table,
            partial(_rolled_up, table),
            _checks(table),
            partitions=partitions,
            home=home,
            description=(
                "Made by the engine that writes the candles, exactly: the trades aren't read again. What "
                "isn't known of a minute is empty. Days that are neither sealed nor fetched have none yet."
            ),
            layer="candles",
            sources=[CANDLES_1M],
            lineage=_LINEAGE,
        )
        for table in (CANDLES_1H, CANDLES_1D)
    ]


def _rolled_up(table: Table, inputs: Inputs, product: str, days: Sequence[date]) -> dict[date, Metadata]:
    settled = settled_days(inputs.store)
    source_id = inputs.candles.snapshot_id(CANDLES_1M)
    rebuilt = inputs.rebuilder(table)(product, [day for day in days if (product, day) in settled], None)
    rows = inputs.candles.scan(
        table,
        product=product,
        start_us=day_start_us(days[0]),
        end_us=day_start_us(days[-1]) + DAY_US,
        columns=["day"],
    )
    counts = {count["values"]: count["counts"] for count in rows["day"].value_counts().to_pylist()}
    made: dict[date, Metadata] = {}
    for day in days:
        was = rebuilt.get(day, Rebuilt(changed=False))
        made[day] = {
            "sealed": settled.get((product, day)) is not None,
            "dagster/partition_row_count": counts.get(day, 0),
            "candles_1m_snapshot_id": str(source_id),
            "snapshot_id": str(inputs.candles.snapshot_id(table)),
            "changed": was.changed,
        }
        if was.job_id is not None:
            made[day]["flink_job_id"] = was.job_id
    return made


def _checks(table: Table) -> tuple[Check, ...]:
    return (
        Check(
            "candles_equal_minutes",
            "Every candle equals its minutes on all columns, and no interval with minutes lacks one.",
            _differing(table),
            f"The candles are not those of `candles_1m`. {_AGAIN}",
        ),
        Check(
            "prices_in_order",
            "high is at least open and close, low at most, and above zero.",
            f"""
            SELECT c.product AS of_product, c.day AS of_day, start, open, high, low, close
            FROM scope JOIN {table.name} AS c ON c.product = scope.product AND c.day = scope.day
            WHERE NOT (high >= open AND high >= close AND low <= open AND low <= close AND low > 0)
            ORDER BY start""",
            f"The candles are damaged. {_AGAIN}",
        ),
        Check("no_duplicate_candles", "No (product, start) is there twice.", no_duplicates(table), _AGAIN),
        Check(
            "no_empty_candle_values",
            "Every required column has a value.",
            no_empty_values(table),
            f"The table was written by another program. {_AGAIN}",
        ),
    )


# Minutes that are complete and whose known ids touch are a run; see `lakehouse.candles.rollup`.
def _differing(table: Table) -> str:
    return f"""
    WITH minutes AS (
        SELECT m.*, date_trunc('{_INTERVALS[table.name]}', m.start) AS interval_start
        FROM scope JOIN candles_1m AS m ON m.product = scope.product AND m.day = scope.day
        WHERE scope.settled
    ), reaching AS (
        SELECT product, start, first_trade_id, max(last_trade_id) OVER (PARTITION BY product, day
            ORDER BY first_trade_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached, day
        FROM minutes WHERE is_complete
    ), runs AS (
        SELECT product, start, count(*) FILTER (first_trade_id > reached + 3) OVER (PARTITION BY product, day
            ORDER BY first_trade_id ROWS UNBOUNDED PRECEDING) AS run
        FROM reaching
    ), expected AS (
        SELECT product, day, interval_start AS start, {ADDED_UP},
            bool_and(is_complete) AND min(run) = max(run) AS is_complete
        FROM minutes LEFT JOIN runs USING (product, start) GROUP BY ALL
    ), stored AS (
        SELECT c.* FROM scope JOIN {table.name} AS c ON c.product = scope.product AND c.day = scope.day
    )
    SELECT coalesce(e.product, s.product) AS of_product, coalesce(e.day, s.day) AS of_day,
        coalesce(e.start, s.start) AS start,
        CASE WHEN s.start IS NULL THEN 'the candle is missing'
            WHEN e.start IS NULL THEN 'there are no minutes' ELSE 'columns differ' END AS problem,
        {", ".join(f"e.{name} AS {name}_of_minutes, s.{name} AS {name}_stored" for name in _COMPARED[:5])}
    FROM expected AS e FULL JOIN stored AS s ON e.product = s.product AND e.start = s.start
    WHERE {" OR ".join(f"e.{name} IS DISTINCT FROM s.{name}" for name in _COMPARED)}
    ORDER BY start"""
