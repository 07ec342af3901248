"""The accounts of the archive: what the log accepted, what was sealed, and the trades that are there."""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa

from lakehouse.market.trade_ids import TradeIds
from lakehouse.reconciliation.breaks import Break, Kind
from lakehouse.stores.schemas import TRADES
from lakehouse.stores.seals import SealRecord, rows_checksum

LOG_ARCHIVE: Final = "log_archive"
SEAL_ARCHIVE: Final = "seal_archive"

SEALED_COLUMNS: Final = ("trade_id", "event_time", "price", "size", "taker_side")
"""What `seal_breaks` looks at: all that an exchange says of a trade."""

_ACCEPTED: Final = """
    WITH accepted AS (
        SELECT day, sum(accepted) AS trades FROM intake
        WHERE product = $product AND kind = 'trade' AND list_contains($days, day) GROUP BY day
    ), archived AS (
        SELECT day, count(*) AS trades FROM trades
        WHERE product = $product AND day BETWEEN $first_day AND $last_day AND list_contains($days, day)
            AND source <> 'backfill'
        GROUP BY day
    )
    SELECT unnest.day, CAST(coalesce(accepted.trades, 0) AS BIGINT), coalesce(archived.trades, 0)
    FROM (SELECT unnest(CAST($days AS DATE[])) AS day) AS unnest
    LEFT JOIN accepted ON accepted.day = unnest.day
    LEFT JOIN archived ON archived.day = unnest.day
    ORDER BY 1"""

_OPEN_GAPS: Final = "SELECT first_trade_id, last_trade_id FROM gaps_open WHERE product = $product"


def log_breaks(
    connection: duckdb.DuckDBPyConnection,
    product: str,
    days: list[date],
    duplicates: Mapping[tuple[str, date], int],
) -> list[Break]:
    """Return the days on which trades were lost or doubled between the feed and the archive.

    Every trade that the feed accepted is a row that came through the log, or was dropped by the archive
    because it was there already. Only counts are compared: which trade it is nobody knows.

    Args:
        connection: over the tables.
        product: whose.
        days: UTC days, at least one.
        duplicates: what the archive dropped, by product and day.
    """
    given = {"product": product, "days": days, "first_day": min(days), "last_day": max(days)}
    breaks = []
    for day, accepted, streamed in connection.execute(_ACCEPTED, given).fetchall():
        ended = streamed + duplicates.get((product, day), 0)
        if accepted != ended:
            kind = Kind.MISSING if ended < accepted else Kind.DUPLICATE
            amount = Decimal(ended - accepted)
            breaks.append(
                Break(day, LOG_ARCHIVE, kind, TRADES.name, "", "", str(accepted), str(ended), amount)
            )
    return breaks


def open_gaps(connection: duckdb.DuckDBPyConnection, product: str) -> TradeIds:
    """Return the ids of a product that `gaps` lists as missing, whether they can be filled or not."""
    return TradeIds(connection.execute(_OPEN_GAPS, {"product": product}).fetchall())


def seal_breaks(day: date, record: SealRecord, product: str, trades: pa.Table, gaps: TradeIds) -> list[Break]:
    """Return where the archive is no longer what was sealed.

    Args:
        day: UTC day.
        record: what was sealed.
        product: whose.
        trades: the day's rows in any order, with `SEALED_COLUMNS`.
        gaps: ids that are known to be missing: they are no break, they are listed in `gaps`.

    Returns:
        MISSING for ranges of ids, DUPLICATE for ids, and where there is neither VALUE_DRIFT for the rows'
        checksum; the amount is that of the rows more or less than sealed then.
    """
    ids, copies = np.unique(trades["trade_id"].to_numpy(), return_counts=True)
    known = TradeIds()
    known.add_new(ids)
    breaks = []
    for first, last in known.missing_between(record.first_id, record.last_id):
        for low, high in gaps.missing_between(first, last):
            key = str(low) if low == high else f"{low}-{high}"
            count = high - low + 1
            breaks.append(
                Break(
                    *(day, SEAL_ARCHIVE, Kind.MISSING, TRADES.name, key, ""),
                    *(str(count), "0", Decimal(-count)),
                )
            )
    for trade_id, count in zip(ids[copies > 1].tolist(), copies[copies > 1].tolist(), strict=True):
        breaks.append(
            Break(
                *(day, SEAL_ARCHIVE, Kind.DUPLICATE, TRADES.name, str(trade_id), ""),
                *("1", str(count), Decimal(count - 1)),
            )
        )
    checksum = rows_checksum(product, day, trades)
    if not breaks and checksum != record.checksum:
        amount = Decimal(trades.num_rows - record.rows)
        breaks.append(
            Break(
                *(day, SEAL_ARCHIVE, Kind.VALUE_DRIFT, TRADES.name, "", "checksum"),
                *(record.checksum, checksum, amount),
            )
        )
    return breaks
