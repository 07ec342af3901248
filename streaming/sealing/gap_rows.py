"""What a seal adds to the gaps table: what can't be had, and what is no longer missing."""

from datetime import date

import pyarrow as pa

from lakehouse.market.gap import FoundBy, GapStatus
from lakehouse.market.time import to_datetime
from lakehouse.market.trade import Exchange
from lakehouse.market.trade_ids import TradeIds
from lakehouse.stores.schemas import GAPS
from streaming.sealing.plan import common, without
from streaming.sealing.rows import NO_OFFSET


def standing(gaps: pa.Table) -> dict[GapStatus, TradeIds]:
    """Return the ids of each status by one product's rows of the gaps table; the latest row of an id decides.

    Rows recorded at the same moment are taken in the order of the log.
    """
    ids = {status: TradeIds() for status in GapStatus}
    columns = ["recorded_at", "spine_offset", "first_trade_id", "last_trade_id", "status"]
    ordered = gaps.select(columns).sort_by([("recorded_at", "ascending"), ("spine_offset", "ascending")])
    for row in ordered.to_pylist():
        concerned = TradeIds([(row["first_trade_id"], row["last_trade_id"])])
        for status in GapStatus:
            if status == row["status"]:
                for first, last in concerned:
                    ids[status].add_range(first, last)
            else:
                ids[status] = without(ids[status], concerned)
    return ids


def news(gaps: pa.Table, known: TradeIds, missing: TradeIds) -> list[tuple[GapStatus, tuple[int, int]]]:
    """Return what the gaps table doesn't say yet, by range.

    Args:
        gaps: one product's rows of the gaps table.
        known: ids that are in the archive.
        missing: ids that the exchange made, that are not in the archive, and that can't be had.

    Returns:
        `FILLED` for ranges that the table still calls missing, `UNFILLABLE` for ranges that it doesn't
        call so: none when called again after they were written.
    """
    now = standing(gaps)
    open_ids = TradeIds([*now[GapStatus.FOUND], *now[GapStatus.UNFILLABLE]])
    filled = common(open_ids, known)
    lost = without(missing, now[GapStatus.UNFILLABLE])
    return [(GapStatus.FILLED, part) for part in filled] + [(GapStatus.UNFILLABLE, part) for part in lost]


def gap_rows(
    found: list[tuple[GapStatus, tuple[int, int]]],
    product: str,
    day: date,
    exchange: Exchange,
    times: dict[tuple[int, int], tuple[int | None, int | None]],
    details: dict[GapStatus, str],
    noticed_us: int,
) -> pa.Table:
    """Return rows of the gaps table.

    Args:
        found: statuses and ranges of ids.
        product: whose.
        day: UTC day that was sealed.
        exchange: which exchange made the trades.
        times: by range the event times in µs of the trades around it, None where there is none that day.
        details: what to tell a person, by status.
        noticed_us: the time of the seal.
    """
    noticed = to_datetime(noticed_us)
    rows = []
    for status, (first, last) in found:
        after_us, before_us = times[first, last]
        rows.append(
            {
                "product": product,
                "day": day,
                "first_trade_id": first,
                "last_trade_id": last,
                "status": status.value,
                "found_by": FoundBy.SEAL.value,
                "after": None if after_us is None else to_datetime(after_us),
                "before": None if before_us is None else to_datetime(before_us),
                "detail": details[status],
                "exchange": exchange.name.lower(),
                "noticed_at": noticed,
                "recorded_at": noticed,
                "spine_partition": NO_OFFSET,
                "spine_offset": NO_OFFSET,
            }
        )
    return pa.Table.from_pylist(rows, schema=GAPS.schema)
