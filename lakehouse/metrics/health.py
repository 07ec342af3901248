"""Rows of `exchange_health`: how well product-days were streamed, by SQL over the tables as they are."""

from collections.abc import Sequence
from datetime import date
from typing import Final

import duckdb
import pyarrow as pa

from lakehouse.stores.schemas import EXCHANGE_HEALTH

SLA_SECONDS: Final = 30
"""99 % of the streamed trades of a day have to be here within this."""

# A trade fetched to fill a gap came through the log late: it counts with the time it took. What a seal or a
# backfill fetched did not, and says nothing of the stream.
_HEALTH: Final = """
WITH asked AS (
    SELECT unnest(CAST($products AS VARCHAR[])) AS product, unnest(CAST($days AS DATE[])) AS day
), archived AS (
    SELECT product, day, count(*) AS trades, count(*) FILTER (spine_offset >= 0) AS streamed,
        quantile_disc(delay_us, 0.5) / 1e6 AS freshness_p50,
        quantile_disc(delay_us, 0.99) / 1e6 AS freshness_p99,
        max(delay_us) / 1e6 AS freshness_max,
        count(*) FILTER (late AND spine_offset >= 0) AS late,
        max(exchange) AS exchange, max(recorded_at) AS recorded_at
    FROM (
        SELECT *, CASE WHEN spine_offset >= 0
            THEN epoch_us(received_at) - epoch_us(event_time) END AS delay_us
        FROM trades JOIN asked USING (product, day)
    ) GROUP BY product, day
), received AS (
    SELECT product, day, received_at FROM trades JOIN asked USING (product, day) WHERE spine_offset >= 0
    UNION ALL SELECT product, day, received_at FROM quotes JOIN asked USING (product, day)
), silences AS (
    SELECT product, day, max(silence_us) / 1e6 AS longest_silence
    FROM (
        SELECT product, day, epoch_us(received_at) - lag(epoch_us(received_at)) OVER (
            PARTITION BY product, day ORDER BY received_at) AS silence_us
        FROM received
    ) GROUP BY product, day
), missing AS (
    SELECT product, day, sum(ids) AS found, sum(ids) FILTER (status = 'filled') AS filled,
        sum(ids) FILTER (status = 'unfillable') AS unfillable
    FROM (SELECT *, last_trade_id - first_trade_id + 1 AS ids FROM gaps_now JOIN asked USING (product, day))
    GROUP BY product, day
), counted AS (
    SELECT product, day, sum(duplicates) AS duplicates, max(exchange) AS exchange,
        max(recorded_at) AS recorded_at
    FROM intake JOIN asked USING (product, day) GROUP BY product, day
), refused AS (
    SELECT product, day, count(*) AS quarantined FROM quarantine JOIN asked USING (product, day)
    GROUP BY product, day
)
SELECT product, day, coalesce(trades, 0) AS trades, coalesce(streamed, 0) AS streamed,
    freshness_p50, freshness_p99, freshness_max, longest_silence,
    coalesce(found, 0) AS gap_ids_found, coalesce(filled, 0) AS gap_ids_filled,
    coalesce(unfillable, 0) AS gap_ids_unfillable,
    coalesce(late, 0) AS late, coalesce(duplicates, 0) AS duplicates,
    coalesce(quarantined, 0) AS quarantined, freshness_p99 <= $sla_seconds AS sla_met,
    coalesce(archived.exchange, counted.exchange) AS exchange,
    greatest(archived.recorded_at, counted.recorded_at) AS recorded_at
FROM asked LEFT JOIN archived USING (product, day) LEFT JOIN silences USING (product, day)
    LEFT JOIN missing USING (product, day) LEFT JOIN counted USING (product, day)
    LEFT JOIN refused USING (product, day)
WHERE archived.exchange IS NOT NULL OR counted.exchange IS NOT NULL
ORDER BY product, day
"""


def health_rows(connection: duckdb.DuckDBPyConnection, product_days: Sequence[tuple[str, date]]) -> pa.Table:
    """Return the rows of `EXCHANGE_HEALTH` of those product-days of which anything is known.

    Args:
        connection: of `lakehouse.stores.sql.connect`.
        product_days: which, each once.

    Raises:
        duckdb.Error: a table can't be read.
    """
    parameters = {
        "products": [product for product, _ in product_days],
        "days": [day for _, day in product_days],
        "sla_seconds": SLA_SECONDS,
    }
    found = connection.sql(_HEALTH, params=parameters).to_arrow_table()
    return found.select(EXCHANGE_HEALTH.schema.names).cast(EXCHANGE_HEALTH.schema)
