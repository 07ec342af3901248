"""When a replay is let go: its candles, its state, and the tag that keeps its snapshot.

A replay is kept until one of the same day, products and speed has ended after it, and for `KEPT` at most
(counted from its last candle, finished or not). One that was killed before its first candle is let go at
once; one that runs never is. Each replay looks at its end, so no other process has to: the nightly ones are
enough. Nothing but its tag keeps an old snapshot of `trades` and the files that only it names.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Final

import structlog

from lakehouse.home import Home
from lakehouse.market.columns import microseconds
from lakehouse.market.time import now_us
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import REPLAY_CANDLES_1M, TRADES
from streaming.replay.running import forget, running
from streaming.replay.settings import STATE, TAG, interrupted

KEPT: Final = timedelta(days=7)

Drop = Callable[[str, date, Collection[str]], None]
"""Takes the candles of some replays out of a product's day."""

_log = structlog.get_logger()


@dataclass
class Kept:
    """What the table holds of a replay."""

    day: date
    products: set[str] = field(default_factory=set)
    newest_us: int = 0
    """When it wrote its last candle, µs UTC."""


def due(kept: Mapping[str, Kept], unfinished: Collection[str], moment_us: int) -> set[str]:
    """Return the ids of replays to let go. Pure.

    Args:
        kept: the replays that have candles, by id.
        unfinished: those that were interrupted.
        moment_us: now, µs UTC.
    """
    oldest_us = moment_us - KEPT // timedelta(microseconds=1)
    latest: dict[tuple[str, frozenset[str]], int] = {}
    for replay_id, found in kept.items():
        if replay_id not in unfinished:
            key = _kind(replay_id), frozenset(found.products)
            latest[key] = max(latest.get(key, 0), found.newest_us)
    return {
        replay_id
        for replay_id, found in kept.items()
        if found.newest_us < max(oldest_us, latest.get((_kind(replay_id), frozenset(found.products)), 0))
    }


def _kind(replay_id: str) -> str:
    """Return an id without its digest: the day and the speed."""
    return replay_id.rpartition(".")[0]


def release(home: Home, archive: IcebergStore, candles: PaimonStore, drop: Drop) -> set[str]:
    """Let go of what is due, and return the ids."""
    kept = _kept(candles)
    tagged = {tag.removeprefix(TAG) for tag in archive.tags(TRADES) if tag.startswith(TAG)}
    states = interrupted(candles)
    gone = (due(kept, states, now_us()) | ((tagged | states) - kept.keys())) - running(home)
    partitions: dict[tuple[str, date], set[str]] = {}
    for replay_id in gone & kept.keys():
        for product in kept[replay_id].products:
            partitions.setdefault((product, kept[replay_id].day), set()).add(replay_id)
    for (product, day), replay_ids in partitions.items():
        drop(product, day, replay_ids)
    if gone & states:
        rows = REPLAY_CANDLES_1M.schema.empty_table()
        candles.upsert(REPLAY_CANDLES_1M, rows, properties=dict.fromkeys(STATE + i for i in gone & states))
    for replay_id in gone & tagged:
        archive.untag(TRADES, TAG + replay_id)
    for replay_id in gone:
        forget(home, replay_id)
    if gone:
        _log.info("replays released", replays=sorted(gone))
    return gone


def _kept(candles: PaimonStore) -> dict[str, Kept]:
    rows = candles.scan(REPLAY_CANDLES_1M, columns=["replay_id", "day", "product", "replayed_at"])
    grouped = rows.group_by(["replay_id", "day", "product"]).aggregate([("replayed_at", "max")])
    found: dict[str, Kept] = {}
    for row, newest_us in zip(
        grouped.to_pylist(), microseconds(grouped["replayed_at_max"]).tolist(), strict=True
    ):
        kept = found.setdefault(row["replay_id"], Kept(row["day"]))
        kept.products.add(row["product"])
        kept.newest_us = max(kept.newest_us, newest_us)
    return found
