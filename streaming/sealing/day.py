"""Sealing one product's day: complete it, sort it into one file, and record what it holds.

What is fetched over REST is fetched outside the table's lock and spooled; then, under it, the partition is
read again, completed and replaced in one snapshot. Sealing a sealed day commits nothing.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import structlog
from pyiceberg.manifest import DataFile

from lakehouse.market.columns import microseconds
from lakehouse.market.gap import GapStatus
from lakehouse.market.time import day_of, now_us, to_datetime
from lakehouse.market.trade import Exchange, Source
from lakehouse.market.trade_ids import TradeIds
from lakehouse.stores.duplicates import duplicates_counter
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.iceberg_partitions import PartitionStats
from lakehouse.stores.schemas import GAPS, QUARANTINE, TRADES
from lakehouse.stores.seals import SealRecord, encode_seal, rows_checksum, seal_property, seals
from streaming.exchanges.contract import Rest
from streaming.sealing.fetch import Answer, Progress, fetch, first_id_from
from streaming.sealing.gap_rows import gap_rows, news
from streaming.sealing.plan import DayEdges, missing_ranges
from streaming.sealing.rows import FETCHED, NO_OFFSET, backfilled_rows, of_day
from streaming.sealing.spool import Spool

log = structlog.get_logger()

_BACKFILL = Source.BACKFILL.name.lower()


@dataclass(frozen=True)
class SealedDay:
    """What sealing a product-day came to."""

    record: SealRecord
    snapshot_id: int | None
    """The trades table's snapshot that holds the sealed rows; None when nothing was ever written."""
    fetched: int
    """Rows that this seal added."""
    filled: int
    """Ids that had been recorded as missing and are there now."""
    unfillable: Sequence[tuple[int, int]]
    """Ranges of ids that the exchange made and that can't be had."""
    refused: int
    """Records of the exchange's answer that went to quarantine."""
    committed: bool
    """False when the day was sealed already and nothing had changed."""


@dataclass(frozen=True)
class Origin:
    """The exchange that can be asked."""

    exchange: Exchange
    rest: Rest


async def seal_day(
    store: IcebergStore,
    origin: Origin | None,
    product: str,
    day: date,
    progress: Progress = lambda asked, total: None,
    spool: Spool | None = None,
) -> SealedDay:
    """Seal a product's day that is over.

    Args:
        store: the namespace's tables.
        origin: the exchange; None where there is nobody to ask (a recording): then what is missing between
            the day's first and last trade is unfillable.
        product: whose day.
        day: UTC day. That it is over is for the caller to know (`streaming.sealing.due`).
        progress: told how much of what is missing has been asked for.
        spool: where what is fetched is kept until the day is sealed, so that sealing it again goes on from
            there; nowhere where None.

    Raises:
        RestError: the exchange can't be asked; the tables are as before.
    """
    edges = await _edges(store, origin, product, day)
    known = _known(store, product, edges)
    spooled = spool.trades() if spool else np.zeros(0, dtype=FETCHED)
    if len(spooled):
        log.info("fetched before", product=product, day=day.isoformat(), trades=len(spooled))
        known.add_new(spooled["trade_id"])
    missing = missing_ranges(known, edges)
    answer = Answer()
    if origin is not None and missing:
        log.info(
            "fetching what is missing",
            product=product,
            day=day.isoformat(),
            trades=sum(last - first + 1 for first, last in missing),
        )
        answer = await fetch(origin.rest, product, missing, progress, spool.keep if spool else _kept_nowhere)
    answer.pages.append(spooled)
    sealed_us = now_us()
    if origin is not None:
        _quarantine(store, answer, origin.exchange, product, day, sealed_us)
    with store.lock(TRADES):
        files = store.data_files(TRADES, product=product, day=day)
        archived, repeated = _each_once(store.read(TRADES, files))
        fetched = of_day(answer.trades, day)
        fetched = fetched[~np.isin(fetched["trade_id"], archived["trade_id"].to_numpy())]
        rows = archived
        if origin is not None and len(fetched):
            archived_us = microseconds(archived["event_time"])
            added = backfilled_rows(fetched, product, origin.exchange, archived_us, sealed_us)
            rows = pa.concat_tables([archived, added])
        rows = rows.sort_by("trade_id")
        edges = _closed(edges, rows)
        record = SealRecord(
            rows=rows.num_rows,
            streamed=pc.sum(pc.not_equal(rows["source"], _BACKFILL)).as_py() or 0,
            first_id=edges.first_id,
            last_id=edges.last_id,
            checksum=rows_checksum(product, day, rows),
            asked=origin is not None,
            sealed_us=sealed_us,
        )
        record, snapshot_id, committed = _commit(store, product, day, rows, record, files, repeated)
    if spool is not None and spool.is_used:
        os.sync()  # none of the table formats does it for its files
        spool.clear()
    lost = TradeIds(missing_ranges(_known(store, product, edges), edges))
    filled = _record_gaps(store, origin, product, day, rows, lost, sealed_us)
    log.info(
        "sealed" if committed else "was sealed already",
        product=product,
        day=day.isoformat(),
        rows=record.rows,
        fetched=len(fetched),
        unfillable=len(lost),
    )
    return SealedDay(record, snapshot_id, len(fetched), filled, list(lost), len(answer.refused), committed)


def _kept_nowhere(trades: npt.NDArray[np.void]) -> None:
    """Keep nothing."""


async def _edges(store: IcebergStore, origin: Origin | None, product: str, day: date) -> DayEdges:
    """Return the ids that the exchange made on a day; it is asked only for what the archive doesn't show.

    Asking for one edge takes some fifty requests, and each day shares its edges with its neighbours.
    """
    by_day = {stats.day: stats for stats in store.partitions(TRADES) if stats.product == product}
    here = by_day.get(day)
    if origin is None:
        return _span(here)
    told = {sealed_day: record for (name, sealed_day), record in seals(store).items() if name == product}
    told = {sealed_day: record for sealed_day, record in told.items() if record.asked}
    if day in told:
        return DayEdges(told[day].first_id, told[day].last_id)
    before, after = day - timedelta(days=1), day + timedelta(days=1)
    first = last = None
    if before in told:
        first = told[before].last_id + 1
    elif _touch(by_day.get(before), here):
        first = _span(here).first_id
    if after in told:
        last = told[after].first_id - 1
    elif _touch(here, by_day.get(after)):
        last = _span(here).last_id
    return DayEdges(
        await first_id_from(origin.rest, product, day) if first is None else first,
        await first_id_from(origin.rest, product, after) - 1 if last is None else last,
    )


def _span(stats: PartitionStats | None) -> DayEdges:
    if stats is None or stats.min_trade_id is None or stats.max_trade_id is None:
        return DayEdges(1, 0)
    return DayEdges(stats.min_trade_id, stats.max_trade_id)


def _touch(earlier: PartitionStats | None, later: PartitionStats | None) -> bool:
    """Tell whether no id lies between two days in the archive: then the edge between them is known."""
    return earlier is not None and later is not None and _span(earlier)[1] + 1 == _span(later)[0]


def _closed(edges: DayEdges, rows: pa.Table) -> DayEdges:
    """Return a day's edges; where the exchange has nothing before the day, it starts at the first trade."""
    if edges.first_id == 1 and edges.trades and rows.num_rows:
        return DayEdges(pc.min(rows["trade_id"]).as_py(), edges.last_id)
    return edges


def _known(store: IcebergStore, product: str, edges: DayEdges) -> TradeIds:
    """Return the archived ids of a product within edges, whatever day their trades are of."""
    known = TradeIds()
    for stats in store.partitions(TRADES):
        first, last = _span(stats)
        if stats.product == product and first <= edges.last_id and last >= edges.first_id:
            ids = store.scan(TRADES, product=product, day=stats.day, columns=["trade_id"])["trade_id"]
            known.add_new(np.sort(ids.to_numpy()))
    return known


def _each_once(rows: pa.Table) -> tuple[pa.Table, int]:
    """Return a product's trades by trade_id without those that came again, and how many these are.

    Flink knows the trades that it took from the log, not those that a seal fetched: what reaches it later of
    these is there twice until now. What a seal fetched stays, else what came first in the log. Two rows of
    one message are no repetition but damage, and stay for the checks to find.
    """
    rows = rows.sort_by([("trade_id", "ascending"), ("spine_offset", "ascending")])
    trade_ids, offsets = rows["trade_id"].to_numpy(), rows["spine_offset"].to_numpy()
    first = np.searchsorted(trade_ids, trade_ids)
    again = offsets != offsets[first]
    return (rows.filter(pa.array(~again)) if again.any() else rows), int(again.sum())


def _commit(
    store: IcebergStore,
    product: str,
    day: date,
    rows: pa.Table,
    record: SealRecord,
    files: Sequence[DataFile],
    repeated: int,
) -> tuple[SealRecord, int | None, bool]:
    """Make the rows the day's partition instead of `files`, with its record, unless both are there.

    The lock is held.
    """
    before = seals(store).get((product, day))
    if before is not None and before.checksum == record.checksum:
        record = msgspec.structs.replace(record, sealed_us=before.sealed_us)
    if record == before and len(files) <= 1 and not repeated:
        return record, store.snapshot_id(TRADES), False
    properties = {seal_property(product, day): encode_seal(record)}
    counters = {duplicates_counter(product, day): repeated} if repeated else {}
    snapshot_id = store.replace(
        TRADES, product, day, rows, properties=properties, counters=counters, files=files
    )
    return record, snapshot_id, True


def _record_gaps(
    store: IcebergStore,
    origin: Origin | None,
    product: str,
    day: date,
    rows: pa.Table,
    lost: TradeIds,
    sealed_us: int,
) -> int:
    """Write what the gaps table doesn't say yet, and return how many of its ids are filled now."""
    known = TradeIds()
    ids = rows["trade_id"].to_numpy()
    known.add_new(ids)
    with store.lock(GAPS):
        found = news(store.scan(GAPS, product=product), known, lost)
        if not found:
            return 0
        event_us = microseconds(rows["event_time"])
        times = {}
        for _, (first, last) in found:
            below, above = np.searchsorted(ids, first) - 1, np.searchsorted(ids, last, side="right")
            times[first, last] = (
                int(event_us[below]) if below >= 0 else None,
                int(event_us[above]) if above < len(ids) else None,
            )
        details = {
            GapStatus.FILLED: "fetched over REST as the day was sealed, or arrived since",
            GapStatus.UNFILLABLE: "a recording can't be asked"
            if origin is None
            else "the exchange's REST interface doesn't have them",
        }
        # Without an origin something is missing only between rows, and those name their exchange.
        exchange = origin.exchange if origin else Exchange[rows["exchange"][0].as_py().upper()]
        store.append(GAPS, gap_rows(found, product, day, exchange, times, details, sealed_us))
    return sum(last - first + 1 for status, (first, last) in found if status is GapStatus.FILLED)


def _quarantine(
    store: IcebergStore, answer: Answer, exchange: Exchange, product: str, day: date, sealed_us: int
) -> None:
    """Keep the records that couldn't be read, each once however often the day is sealed."""
    if not answer.refused:
        return
    today = day_of(sealed_us)
    with store.lock(QUARANTINE):
        there = store.scan(QUARANTINE, columns=["product", "frame", "detail"]).to_pylist()
        kept = {(row["product"], row["frame"]) for row in there}
        rows = []
        for raw, problem in answer.refused:
            if (product, raw) in kept:
                continue
            kept.add((product, raw))
            rows.append(
                {
                    "day": today,
                    "product": product,
                    "reason": problem.reason.value,
                    "detail": f"fetched to seal {day.isoformat()}: {problem}",
                    "frame": raw,
                    "exchange": exchange.name.lower(),
                    "received_at": to_datetime(sealed_us),
                    "recorded_at": to_datetime(sealed_us),
                    "spine_partition": NO_OFFSET,
                    "spine_offset": NO_OFFSET,
                }
            )
        if rows:
            store.append(QUARANTINE, pa.Table.from_pylist(rows, schema=QUARANTINE.schema))
