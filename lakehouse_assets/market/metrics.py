"""The asset `metrics_daily`: returns and risk of sealed days."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.home import Home
from lakehouse.market.time import DAY_US, day_start_us
from lakehouse.metrics.daily import WINDOW_DAYS, day_realised_volatility, metrics_rows
from lakehouse.stores.schemas import CANDLES_1D, CANDLES_1M, METRICS_DAILY
from lakehouse.stores.settled import settled_days
from lakehouse_assets.market.checks import Check, no_duplicates, no_empty_values
from lakehouse_assets.market.table_asset import Inputs, Metadata, table_asset
from lakehouse_assets.plots import metrics_plot

_AGAIN: Final = "Materialize this partition again to compute its figures anew"

_DAYS_SHOWN: Final = 180

_COPIED: Final = ("close", "volume", "quote_volume", "trade_count", "is_complete", "exchange", "recorded_at")
_FROM_CLOSES: Final = (
    *("simple_return", "log_return", "return_30d", "return_90d"),
    *("volatility_30d", "volatility_90d", "sharpe_30d", "sharpe_90d"),
)

_LINEAGE: Final = {
    **{name: [(CANDLES_1D, name)] for name in ("product", "day", *_COPIED)},
    **{name: [(CANDLES_1D, "close")] for name in _FROM_CLOSES},
    "vwap": [(CANDLES_1D, "quote_volume"), (CANDLES_1D, "volume")],
    "realised_volatility": [(CANDLES_1M, name) for name in ("open", "close", "is_complete")],
}


def metrics_asset(partitions: dg.PartitionsDefinition[str], home: Home) -> dg.AssetsDefinition:
    """Return the asset, partitioned by product and day."""
    return table_asset(
        METRICS_DAILY,
        _made,
        METRICS_CHECKS,
        partitions=partitions,
        home=home,
        description=(
            "Annualised for a market that is open 365 days a year. Figures reach back over up to 90 days, so "
            "materializing a day also computes the rows of the 90 days after it again, as far as they are "
            "there: the table never holds a figure made from a candle that has changed since. Days that "
            "are neither sealed nor fetched have no row yet."
        ),
        layer="metrics",
        sources=[CANDLES_1M, CANDLES_1D],
        lineage=_LINEAGE,
    )


def _made(inputs: Inputs, product: str, days: Sequence[date]) -> dict[date, Metadata]:
    window = timedelta(days=WINDOW_DAYS)
    records = settled_days(inputs.store)
    settled = [day for day in days if (product, day) in records]
    with inputs.store.lock(METRICS_DAILY):
        there = inputs.store.scan(METRICS_DAILY, product=product, columns=["day", "realised_volatility"])
        realised = {row["day"]: row["realised_volatility"] for row in there.to_pylist()}
        later = [
            day
            for day in realised
            if day not in days and any(0 < (day - changed).days <= WINDOW_DAYS for changed in settled)
        ]
        realised |= {day: _realised_volatility(inputs, product, day) for day in settled}
        wanted = [*settled, *later]
        daily = inputs.candles.scan(
            CANDLES_1D,
            product=product,
            start_us=day_start_us(days[0] - window),
            end_us=day_start_us(days[-1] + window) + DAY_US,
        )
        rows = metrics_rows(wanted, daily, realised)
        before = inputs.store.snapshot_id(METRICS_DAILY)
        snapshot_id = inputs.store.replace_days(METRICS_DAILY, product, wanted, rows)
    made: dict[date, Metadata] = {
        day: {
            "sealed": records.get((product, day)) is not None,
            "dagster/partition_row_count": 0,
            "candles_1d_snapshot_id": str(inputs.candles.snapshot_id(CANDLES_1D)),
            "snapshot_id": str(snapshot_id),
            "changed": snapshot_id != before,
            "later_days_computed": len(later),
        }
        for day in days
    }
    for row in rows.to_pylist():
        if row["day"] in made:
            figures = {name: row[name] for name in _FROM_CLOSES if row[name] is not None}
            made[row["day"]] |= {"dagster/partition_row_count": 1, **figures}
    if settled:
        made[settled[-1]]["plot"] = metrics_plot(product, _until(inputs, product, settled[-1]))
    return made


def _realised_volatility(inputs: Inputs, product: str, day: date) -> float | None:
    minutes = inputs.candles.scan(
        CANDLES_1M, product=product, day=day, columns=["start", "open", "close", "is_complete"]
    )
    return day_realised_volatility(minutes, day)


def _until(inputs: Inputs, product: str, day: date) -> pa.Table:
    rows = inputs.store.scan(METRICS_DAILY, product=product)
    shown = rows.filter(pc.less_equal(rows["day"], pa.scalar(day))).sort_by("day")
    return shown.slice(max(shown.num_rows - _DAYS_SHOWN, 0))


_TOLERANCE = "1e-9"

# Of floats only the last digits may differ: DuckDB sums in another order.
_FIGURES_DIFFER: Final = f"""
    WITH days AS (
        SELECT product, day, CAST(close AS DOUBLE) AS close, close AS exact_close, volume, quote_volume
        FROM candles_1d WHERE product IN (SELECT product FROM scope)
    ), returns AS (
        SELECT days.*, days.close / eve.close - 1 AS simple_return, ln(days.close / eve.close) AS log_return
        FROM days LEFT JOIN days AS eve ON eve.product = days.product AND eve.day = days.day - 1
    ), windows AS (
        SELECT one.product, one.day, size,
            CASE WHEN count(past.log_return) = size
                THEN stddev_samp(past.log_return) * sqrt(365) END AS volatility,
            CASE WHEN count(past.simple_return) = size AND min(past.simple_return) < max(past.simple_return)
                THEN avg(past.simple_return) / stddev_samp(past.simple_return) * sqrt(365) END AS sharpe
        FROM scope JOIN returns AS one ON one.product = scope.product AND one.day = scope.day
        CROSS JOIN (VALUES (30), (90)) AS sizes(size)
        JOIN returns AS past ON past.product = one.product
            AND past.day BETWEEN one.day - CAST(size AS INTEGER) + 1 AND one.day
        GROUP BY one.product, one.day, size
    ), expected AS (
        SELECT one.product, one.day, one.exact_close, one.volume, one.quote_volume,
            one.simple_return, one.log_return,
            one.close / month.close - 1 AS return_30d, one.close / quarter.close - 1 AS return_90d,
            any_value(windows.volatility) FILTER (size = 30) AS volatility_30d,
            any_value(windows.volatility) FILTER (size = 90) AS volatility_90d,
            any_value(windows.sharpe) FILTER (size = 30) AS sharpe_30d,
            any_value(windows.sharpe) FILTER (size = 90) AS sharpe_90d
        FROM windows JOIN returns AS one ON one.product = windows.product AND one.day = windows.day
        LEFT JOIN days AS month ON month.product = one.product AND month.day = one.day - 30
        LEFT JOIN days AS quarter ON quarter.product = one.product AND quarter.day = one.day - 90
        GROUP BY ALL
    ), stored AS (
        SELECT m.* FROM scope JOIN metrics_daily AS m ON m.product = scope.product AND m.day = scope.day
    )
    SELECT coalesce(e.product, s.product) AS of_product, coalesce(e.day, s.day) AS of_day,
        CASE WHEN s.day IS NULL THEN 'the row is missing' WHEN e.day IS NULL THEN 'there is no candle'
            ELSE 'figures differ' END AS problem,
        {", ".join(f"e.{name} AS {name}_of_candles, s.{name} AS {name}_stored" for name in _FROM_CLOSES)}
    FROM expected AS e FULL JOIN stored AS s ON e.product = s.product AND e.day = s.day
    WHERE e.exact_close IS DISTINCT FROM s.close OR e.volume IS DISTINCT FROM s.volume
        OR e.quote_volume IS DISTINCT FROM s.quote_volume
        OR {
    " OR ".join(
        f"(e.{name} IS NULL) <> (s.{name} IS NULL) "
        f"OR abs(e.{name} - s.{name}) > {_TOLERANCE} * greatest(1, abs(e.{name}))"
        for name in _FROM_CLOSES
    )
}"""

METRICS_CHECKS: Final = (
    Check(
        "metrics_equal_candles",
        "Every figure is that of the candles of the days it needs, and is empty just where one is not there.",
        _FIGURES_DIFFER,
        f"The figures are not those of `candles_1d`. {_AGAIN}; if it stays, roll the candles up first",
    ),
    Check(
        "moves_are_plausible",
        "The day's price didn't more than double or halve.",
        """
        SELECT m.product AS of_product, m.day AS of_day, simple_return, close
        FROM scope JOIN metrics_daily AS m ON m.product = scope.product AND m.day = scope.day
        WHERE abs(log_return) > ln(2)""",
        "The price more than doubled or halved within a day. That happens, but look at the day's trades "
        "before anything is based on it: a misprint of the exchange looks the same",
        blocking=False,
        severity=dg.AssetCheckSeverity.WARN,
    ),
    Check("no_duplicate_metrics", "No (product, day) is there twice.", no_duplicates(METRICS_DAILY), _AGAIN),
    Check(
        "no_empty_metrics_values",
        "Every required column has a value.",
        no_empty_values(METRICS_DAILY),
        f"The table was written by another program. {_AGAIN}",
    ),
)
