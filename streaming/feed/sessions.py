"""What a restart needs: checkpoints in the spine's topic `sessions`, and the way back from them.

A checkpoint says what is known of each product, how far each recording was read, and where the log ended
at that moment. It is published with the messages it speaks of. After a crash, the gaps and trades that
follow it in the log are taken in again; what was published but not counted any more is counted then.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from lakehouse.market.gap import FoundBy, Gap, GapStatus
from lakehouse.market.intake import IntakeCount
from lakehouse.market.quarantine import Refused
from lakehouse.market.time import DAY_US, day_start_us
from lakehouse.market.trade import TRADE_RECORD, Exchange
from lakehouse.market.trade_ids import TradeIds
from streaming.feed.handler import FeedHandler, ProductState, Uncounted
from streaming.feed.trade_gaps import GapsState, Hole
from streaming.spine.contract import Partition, Spine
from streaming.spine.topics import FEED, GAPS, INTAKE, QUARANTINE, SESSIONS, TRADES

SESSION: Final = Partition(SESSIONS, 0)

_READ_AGAIN: Final = (TRADES, GAPS, QUARANTINE, INTAKE)
"""Topics of which a restart reads what follows the checkpoint."""

_READ: Final = 50_000


class RecordingState(msgspec.Struct):
    """How far a recording was read: its first `lines` lines are in the log."""

    lines: int
    finished: bool


class Checkpoint(msgspec.Struct):
    """Everything the feed knows. `ends` is where each topic's partitions end with this checkpoint."""

    ends: dict[str, list[int]] = {}
    products: dict[str, ProductState] = {}
    recordings: dict[str, RecordingState] = {}


class Recovered(msgspec.Struct):
    """What an earlier run left."""

    products: dict[str, ProductState]
    recordings: dict[str, RecordingState]
    uncounted: dict[tuple[str, int], Uncounted]

    def count_the_rest(self, handler: FeedHandler) -> None:
        """Have the inputs counted that a killed run published and didn't count."""
        for (product, day), missing in self.uncounted.items():
            handler.recount(product, day, missing)


def checkpoint(
    handler: FeedHandler, recordings: Mapping[str, RecordingState], ends: Mapping[Partition, int]
) -> bytes:
    """Return a checkpoint as a message."""
    by_topic: dict[str, list[int]] = {}
    for partition in sorted(ends):
        by_topic.setdefault(partition.topic, []).append(ends[partition])
    return msgspec.msgpack.encode(Checkpoint(by_topic, handler.states(), dict(recordings)))


def commit(spine: Spine, ends: Mapping[Partition, int]) -> None:
    """Let retention drop what lies before a checkpoint; the checkpoint itself stays."""
    offsets = {partition: end for partition, end in ends.items() if partition.topic in _READ_AGAIN}
    spine.commit(FEED, offsets | {SESSION: max(ends[SESSION] - 1, 0)})


def recover(spine: Spine) -> Recovered:
    """Return what earlier runs on this log left; of a new log, nothing."""
    read_again = (Partition(topic, n) for topic in _READ_AGAIN for n in range(spine.partitions))
    # Read before that, what a killed run had on its way would be in the log and nowhere counted.
    spine.settled_ends((SESSION, *read_again))
    last = Checkpoint()
    if (end := spine.end(SESSION)) > spine.start(SESSION):
        last = msgspec.msgpack.decode(spine.read(SESSION, end - 1, 1).payloads[0], type=Checkpoint)
    recovered = Recovered(last.products, last.recordings, {})
    trades: Counter[tuple[str, int]] = Counter()
    late: Counter[tuple[str, int]] = Counter()
    quarantined: Counter[tuple[str, int]] = Counter()
    for payload in _after(spine, last, GAPS):
        gap = msgspec.msgpack.decode(payload, type=Gap)
        _take_in(recovered.products.setdefault(gap.product, ProductState(gap.exchange)).gaps, gap)
    for records in _trades_after(spine, last):
        for name in np.unique(records["product"]):
            own = records[records["product"] == name]
            product = name.decode()
            _absorb(recovered.products, product, own)
            days, counts = np.unique(own["event_us"] // DAY_US, return_counts=True)
            for day, count in zip(days.tolist(), counts.tolist(), strict=True):
                trades[product, day] += count
                late[product, day] += int(own["late"][own["event_us"] // DAY_US == day].sum())
    for payload in _after(spine, last, QUARANTINE):
        refused = msgspec.msgpack.decode(payload, type=Refused)
        known = refused.product if refused.product in recovered.products else ""
        quarantined[known, refused.received_us // DAY_US] += 1
    for payload in _after(spine, last, INTAKE):
        count_row = msgspec.msgpack.decode(payload, type=IntakeCount)
        key = (count_row.product, day_start_us(count_row.day) // DAY_US)
        quarantined[key] -= count_row.quarantined
        if count_row.kind == "trade":
            trades[key] -= count_row.accepted
            late[key] -= count_row.late
    for key in trades.keys() | quarantined.keys():
        missing = Uncounted(trades[key], late[key], max(quarantined[key], 0))
        if missing.accepted > 0 or missing.quarantined:
            recovered.uncounted[key] = missing
    return recovered


def _take_in(gaps: GapsState, row: Gap) -> None:
    """Take a row of `gaps` into what is known of a product's: of each id the latest row decides.

    Without it a gap that was found and filled in part since the checkpoint would stay found for ever: by its
    trades it is no hole any more, and nobody would say that it was filled.
    """
    ids = TradeIds([(row.first_trade_id, row.last_trade_id)])
    gaps.holes = [
        msgspec.structs.replace(hole, first=first, last=last)
        for hole in gaps.holes
        for first, last in ids.missing_between(hole.first, hole.last)
    ]
    if row.status is not GapStatus.FILLED:
        times = (row.after_us, row.before_us, row.noticed_us)
        given_up = row.status is GapStatus.UNFILLABLE
        ends = (row.first_trade_id, row.last_trade_id)
        gaps.holes.append(Hole(*ends, row.found_by, *times, confirmed=True, given_up=given_up))
    gaps.touched = bool(gaps.holes)


def _absorb(products: dict[str, ProductState], product: str, records: npt.NDArray[np.void]) -> None:
    """Take trades of one product into what is known of it."""
    state = products.setdefault(product, ProductState(Exchange(int(records["exchange"][0]))))
    ids = TradeIds(state.ids)
    highest = ids.highest or 0
    ids.add_new(records["trade_id"])
    state.ids = list(ids)
    state.newest_event_us = max(state.newest_event_us, int(records["event_us"].max()))
    top = int(records["trade_id"].argmax())
    if int(records["trade_id"][top]) > highest:
        state.last_event_us = int(records["event_us"][top])
    noticed = TradeIds((hole.first, hole.last) for hole in state.gaps.holes)
    received_us = int(records["received_us"].max())
    for first, last in ids.missing_between(state.ids[0][0], state.ids[-1][1]):
        for start, end in noticed.missing_between(first, last):
            state.gaps.holes.append(Hole(start, end, FoundBy.TRADE_ID, 0, 0, received_us))
    state.gaps.touched = bool(state.gaps.holes)


def _trades_after(spine: Spine, last: Checkpoint) -> Iterator[npt.NDArray[np.void]]:
    for number in range(spine.partitions):
        for payloads in _batches(spine, Partition(TRADES, number), last):
            yield np.frombuffer(b"".join(payloads), dtype=TRADE_RECORD)


def _after(spine: Spine, last: Checkpoint, topic: str) -> Iterator[bytes]:
    for number in range(spine.partitions):
        for payloads in _batches(spine, Partition(topic, number), last):
            yield from payloads


def _batches(spine: Spine, partition: Partition, last: Checkpoint) -> Iterator[list[bytes]]:
    """Yield the messages that follow a checkpoint and are still there."""
    ends = last.ends.get(partition.topic, [])
    offset = max(ends[partition.number] if partition.number < len(ends) else 0, spine.start(partition))
    while offset < spine.end(partition):
        batch = spine.read(partition, offset, _READ)
        yield list(batch.payloads)
        offset = batch.next_offset
