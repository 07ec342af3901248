"""The assets `quotes` and `book`: the stream writes them; materializing a product's day looks at it.

They can't be fetched afterwards: an exchange's REST interface has trades of the past, but no quotes. What a
check finds here stays, and says how far the figures made from it can be trusted.
"""

from collections.abc import Sequence
from datetime import date
from functools import partial
from typing import Final

import dagster as dg

from lakehouse.home import Home
from lakehouse.stores.schemas import BOOK, QUOTES, Table
from lakehouse_assets.market.checks import Check, no_empty_values
from lakehouse_assets.market.table_asset import Inputs, Metadata, table_asset

_DAMAGED: Final = (
    "The table was written by another program or its files are damaged: roll it back to the snapshot before"
)
_FEED_IS_WRONG: Final = (
    "The exchange sent it, or the book was kept wrongly: compare with the recorded frames if there are any, "
    "and restart the feed, which takes a new snapshot of the book"
)


def book_assets(partitions: dg.PartitionsDefinition[str], home: Home) -> list[dg.AssetsDefinition]:
    """Return the two assets, partitioned by product and day."""
    return [
        table_asset(
            table,
            partial(_looked_at, table),
            checks,
            partitions=partitions,
            home=home,
            description=(
                "Written by the stream alone. Materializing a day changes nothing: it counts the day's rows "
                "and checks them."
            ),
            layer="archive",
            reads=table,
        )
        for table, checks in ((QUOTES, QUOTE_CHECKS), (BOOK, BOOK_CHECKS))
    ]


def _looked_at(table: Table, inputs: Inputs, product: str, days: Sequence[date]) -> dict[date, Metadata]:
    snapshot_id = inputs.store.snapshot_id(table)
    partitions = inputs.store.partitions(table, snapshot_id=snapshot_id)
    there = {stats.day: stats for stats in partitions if stats.product == product}
    return {
        day: {
            "dagster/partition_row_count": there[day].rows if day in there else 0,
            "files": there[day].files if day in there else 0,
            "bytes": there[day].bytes if day in there else 0,
            "snapshot_id": str(snapshot_id),
        }
        for day in days
    }


def _offsets_twice(table: Table) -> str:
    """Return the query for keys that are there twice; a place in the log belongs to one day."""
    key = ", ".join(f"t.{name}" for name in table.key)
    return f"""
        SELECT t.product AS of_product, t.day AS of_day, {key}, count(*) AS copies
        FROM scope JOIN {table.name} AS t ON t.product = scope.product AND t.day = scope.day
        GROUP BY ALL HAVING count(*) > 1 ORDER BY {key}"""


def _rows_where(table: Table, shown: str, condition: str) -> str:
    return f"""
        SELECT t.product AS of_product, t.day AS of_day, spine_partition, spine_offset, {shown}
        FROM scope JOIN {table.name} AS t ON t.product = scope.product AND t.day = scope.day
        WHERE {condition} ORDER BY spine_offset"""


QUOTE_CHECKS: Final = (
    Check(
        "bids_below_asks",
        "The best bid is below the best ask.",
        _rows_where(QUOTES, "event_time, bid, ask, source", "bid >= ask"),
        f"Bid and ask crossed. A handful is an exchange that tells of one side first. More: {_FEED_IS_WRONG}",
        blocking=False,
        severity=dg.AssetCheckSeverity.WARN,
    ),
    Check(
        "prices_and_sizes_possible",
        "Prices are above zero, sizes not below.",
        _rows_where(
            QUOTES,
            "bid, bid_size, ask, ask_size",
            "NOT (bid > 0 AND ask > 0 AND bid_size >= 0 AND ask_size >= 0)",
        ),
        _FEED_IS_WRONG,
    ),
    Check(
        "spread_and_mid_exact",
        "spread = ask - bid and mid = (bid + ask) / 2, to the last digit; the imbalance is within -1 and 1.",
        _rows_where(
            QUOTES,
            "bid, ask, spread, mid, imbalance",
            "spread <> ask - bid OR 2 * mid <> bid + ask OR imbalance NOT BETWEEN -1 AND 1",
        ),
        _DAMAGED,
    ),
    Check(
        "no_duplicate_quotes",
        "No message of the log is archived twice.",
        _offsets_twice(QUOTES),
        "A message was archived twice, so counts are too high (time-weighted figures are not touched). No "
        "commit of ours makes that: look for another writer, and roll the table back to the snapshot before",
    ),
    Check("no_empty_values", "Every required column has a value.", no_empty_values(QUOTES), _DAMAGED),
)

BOOK_CHECKS: Final = (
    Check(
        "prices_and_sizes_possible",
        "Prices are above zero, sizes not below.",
        _rows_where(BOOK, "level, side, price, size", "NOT (price > 0 AND size >= 0)"),
        _FEED_IS_WRONG,
    ),
    Check(
        "known_kinds_and_sides",
        "Every row is of a snapshot or an update, a bid or an ask, and update ids don't run backwards.",
        _rows_where(
            BOOK,
            "level, kind, side, first_update_id, last_update_id",
            "kind NOT IN ('snapshot', 'update') OR side NOT IN ('bid', 'ask') "
            "OR first_update_id > last_update_id",
        ),
        _DAMAGED,
    ),
    Check(
        "no_duplicate_levels",
        "No level of a message of the log is archived twice.",
        _offsets_twice(BOOK),
        "A message was archived twice. No commit of ours makes that: look for another writer, and roll the "
        "table back to the snapshot before",
    ),
    Check("no_empty_values", "Every required column has a value.", no_empty_values(BOOK), _DAMAGED),
)
