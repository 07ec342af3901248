"""The bridge: trades, quotes and books from the log into Fluss, acknowledged, in order, nothing left out."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import structlog

from lakehouse.market.trade import Lateness
from lakehouse.stores.fluss_connection import FlussStoreError, FlussTimeoutError, abandon
from lakehouse.stores.fluss_tables import LEVELS, TOO_LATE
from lakehouse.stores.fluss_writer import FlussWriter
from streaming.engines.embedded.decode import ROWS, MalformedMessageError, trade_records
from streaming.engines.embedded.stage import Freeing, StepResult, beginning
from streaming.engines.fluss.archived import Archived
from streaming.engines.fluss.comparison import Comparison, Missing
from streaming.engines.fluss.current_table import CurrentTable
from streaming.engines.fluss.known_ends import KnownEnds
from streaming.engines.fluss.metrics import (
    COMPARISONS,
    IN_FLIGHT,
    MISSING,
    RECONNECTS,
    REPUSHED,
    SHORTER,
    TIMEOUTS,
)
from streaming.engines.fluss.pushes import Batches, Pushes
from streaming.spine.contract import Batch, Partition, Spine, SpineError
from streaming.spine.topics import BOOK, BRIDGE, QUOTES, TRADES

TOPICS: Final = (TRADES, QUOTES, BOOK)

MESSAGES_PER_PARTITION: Final = 60_000
"""Messages a step takes from each partition of a topic at most."""

BYTES_PER_PARTITION: Final = 4 * 2**20
"""Payload a step takes from each partition at most: a message of the book may hold thousands of levels."""

STEP_SECONDS: Final = 1.0
"""A step takes in so long what comes while its pushes are on their way."""

LOOK_SECONDS: Final = 0.01
"""Between two looks at the log then: each finds a push of its own, which costs the servers something."""

PUSHES_IN_FLIGHT: Final = 8
"""Pushes on their way at once at most: a message does not wait for the end of the one before."""

FULL_PUSHES_IN_FLIGHT: Final = 2
"""The same while the bridge is behind: each holds as much as a step may take."""

MARK_EVERY_SECONDS: Final = 5.0
"""Between two looks at where the logs of Fluss end, for which messages have to wait."""

_log = structlog.get_logger()


@dataclass
class _Landed:
    """What a step has brought to Fluss so far."""

    messages: Counter[str] = field(default_factory=Counter)
    too_late: int = 0


class BridgeStage:
    """A `Stage` that fills the tables of Fluss.

    What Fluss acknowledged may still be lost with it, so it is not what the log is freed by: that is what
    the archive holds (`Archived`). A new bridge pushes from the archive's frontier on. After an error the
    writer is abandoned, and the next step makes a new one: when the logs of Fluss still hold what they
    held, it goes on with what was not acknowledged, else it pushes from the frontier on, before anything
    new. What is pushed twice is dropped by key downstream.

    A log of Fluss that lost rows is filled up first, with messages that the archive holds. Flink knows how
    far it was in it: it would restart in circles while the log ends before that, and pass by what comes to
    lie there.
    """

    name = BRIDGE

    def __init__(
        self,
        spine: Spine,
        archived: Archived,
        connect: Callable[[], FlussWriter],
        current: CurrentTable,
        *,
        compare_seconds: float,
        grace_seconds: float,
        known_ends: KnownEnds | None = None,
    ) -> None:
        """Start at the archive's frontier; Fluss is reached by the first step.

        Args:
            spine: the log.
            archived: what the archive holds of it.
            connect: makes a writer.
            current: keeps the current state of each product.
            compare_seconds: time between two comparisons of the archive with the log.
            grace_seconds: age at which a message that the archive passed by counts as missing.
            known_ends: where the logs of Fluss ended; of this bridge alone where None.
        """
        self._spine = spine
        self._archived = archived
        self._connect = connect
        self._writer: FlussWriter | None = None
        self._partitions = [Partition(topic, n) for topic in TOPICS for n in range(spine.partitions)]
        self._next: dict[Partition, int] = {}
        """Behind what is acknowledged."""
        self._current = current
        self._known_ends = known_ends or KnownEnds()
        self._mark: Mapping[Partition, int] | None = None
        """All before these was acknowledged when the ends were last remembered."""
        self._mark_due = 0.0
        self._comparison = Comparison(archived, grace_seconds=grace_seconds)
        self._compare_seconds = compare_seconds
        self._compare_due = time.monotonic()
        self._comparing: Future[list[Missing]] | None = None
        self._thread = ThreadPoolExecutor(1, "comparison")
        self._again: list[Missing] = []
        self._freeing = Freeing(spine, BRIDGE, synced=True)
        archived.refresh()
        self._go_to({partition: archived.frontier(partition) for partition in self._partitions})

    def step(self) -> StepResult:
        """See `Stage.step`. What is missing goes first; everything a step read is acknowledged at its end.

        Raises:
            FlussStoreError: Fluss did not answer or refused; the next step makes a new connection.
        """
        try:
            writer = self._writer or self._reconnect()
            self._push_missing(writer)
            result = self._push_next(writer)
            self._remember(writer)
        except FlussStoreError as error:
            if self._writer is not None:
                abandon(self._writer)
                self._writer = None
            IN_FLIGHT.set(0)
            if isinstance(error, FlussTimeoutError):
                TIMEOUTS.inc()
            raise
        self._compare()
        return result

    def _reconnect(self) -> FlussWriter:
        writer = self._writer = self._connect()
        if self._mark is not None:
            RECONNECTS.inc()
        lost = self._known_ends.lost(writer.ends(), writer.table_ids)
        if lost or (self._mark is not None and not self._known_ends.are_of(writer.table_ids)):
            self._go_back(writer, lost)
        elif self._mark is not None:
            self._go_to(self._mark)
        return writer

    def _go_back(self, writer: FlussWriter, lost: Mapping[tuple[str, int], int]) -> None:
        SHORTER.inc()
        _log.error(
            "Fluss ends before rows that it had acknowledged; pushing all again that is not archived",
            rows={f"{table}/{bucket}": rows for (table, bucket), rows in lost.items()},
        )
        self._end_comparison()
        self._archived.refresh()
        self._mark, self._mark_due = None, 0.0
        self._go_to({partition: self._archived.frontier(partition) for partition in self._partitions})
        for topic in TOPICS:
            self._fill_up(writer, topic)

    def _fill_up(self, writer: FlussWriter, topic: str) -> None:
        """Push archived messages until the topic's logs are as long as they were: the newest, then older."""
        upto = {partition: at for partition, at in self._next.items() if partition.topic == topic}
        while lost := self._lost(writer, topic):
            parts = []
            for partition, end in upto.items():
                first = max(end - min(2 * lost, MESSAGES_PER_PARTITION), self._spine.start(partition))
                if first < end:
                    batch = beginning(self._spine.read(partition, first, end - first), BYTES_PER_PARTITION)
                    parts.append(rows_of(batch, partition))
                    upto[partition] = first
            if not parts:
                _log.warning("nothing of the log is left to fill up Fluss with", topic=topic, rows=lost)
                return
            self._push(writer, {topic: pa.concat_tables(parts)})

    def _lost(self, writer: FlussWriter, topic: str) -> int:
        """Return how many rows the logs of a topic are shorter than they were."""
        lost = self._known_ends.lost(writer.ends(), writer.table_ids)
        return sum(rows for (table, _), rows in lost.items() if table == topic)

    def _go_to(self, positions: Mapping[Partition, int]) -> None:
        self._end_comparison()
        self._next = dict(positions)
        self._comparison.forget()

    def _push_next(self, writer: FlussWriter) -> StepResult:
        """Push what is next, and for a while what comes meanwhile; return when all is acknowledged."""
        pushes = Pushes(writer, self._current)
        reading, landed = dict(self._next), _Landed()
        until = time.monotonic() + STEP_SECONDS
        batches, behind = self._read(reading)
        try:
            while batches or pushes:
                if batches:
                    pushes.send(rows_by_topic(batches), batches)
                    reading |= {partition: batch.next_offset for partition, batch in batches}
                most = FULL_PUSHES_IN_FLIGHT if behind else PUSHES_IN_FLIGHT
                more_to_send = behind and len(pushes) < most and time.monotonic() < until
                self._land(pushes, landed, within_seconds=0 if more_to_send else LOOK_SECONDS)
                batches = []
                if len(pushes) < most and time.monotonic() < until:
                    batches, behind = self._read(reading)
        except (MalformedMessageError, SpineError):  # of what comes next: what was sent counts
            while pushes:
                self._land(pushes, landed, within_seconds=LOOK_SECONDS)
            raise
        return StepResult(landed.messages, behind or bool(self._again), too_late=landed.too_late)

    def _land(self, pushes: Pushes, landed: _Landed, *, within_seconds: float) -> None:
        for push in pushes.landed(within_seconds):
            for partition, batch in push.batches:
                self._next[partition] = batch.next_offset
                landed.messages[partition.topic] += len(batch.payloads)
            if TRADES in push.rows:
                landed.too_late += int(np.count_nonzero(push.rows[TRADES][TOO_LATE.name]))

    def _read(self, positions: Mapping[Partition, int]) -> tuple[list[tuple[Partition, Batch]], bool]:
        """Return what is next, and whether there is more."""
        batches, more = [], False
        for partition, offset in positions.items():
            found = self._spine.read(partition, offset, MESSAGES_PER_PARTITION)
            if found.payloads:
                batch = beginning(found, BYTES_PER_PARTITION)
                more |= len(batch.payloads) < len(found.payloads)
                more |= len(found.payloads) >= MESSAGES_PER_PARTITION
                batches.append((partition, batch))
        return batches, more

    def _push(self, writer: FlussWriter, rows: Mapping[str, pa.Table]) -> None:
        """Push rows and wait until all are acknowledged."""
        pushes = Pushes(writer, self._current)
        pushes.send(rows)
        while pushes:
            pushes.landed(LOOK_SECONDS)

    def _remember(self, writer: FlussWriter) -> None:
        if time.monotonic() < self._mark_due:
            return
        self._known_ends.remember(writer.ends(), writer.table_ids)
        self._mark = dict(self._next)
        self._mark_due = time.monotonic() + MARK_EVERY_SECONDS

    # What Flink passed by

    def _compare(self) -> None:
        """Compare now and then, in a thread: looking at the archive takes a part of a second."""
        if self._comparing is not None:
            if not self._comparing.done():
                return
            compared, self._comparing = self._comparing, None
            self._take_in(compared.result())
        if time.monotonic() >= self._compare_due:
            self._compare_due = time.monotonic() + self._compare_seconds
            self._comparing = self._thread.submit(self._missing, dict(self._next))

    def _missing(self, positions: Mapping[Partition, int]) -> list[Missing]:
        self._archived.refresh()
        missing = self._comparison.compare(positions)
        self._freeing.after_commit(self._archived_of(positions))
        return missing

    def _take_in(self, missing: list[Missing]) -> None:
        COMPARISONS.inc()
        for topic in TOPICS:
            count = sum(one.messages for one in missing if one.partition.topic == topic)
            MISSING.labels(topic).set(count)
        if not self._again:
            self._again = [one for one in missing if self._comparison.due(one)]
            self._comparison.pushed({one.partition for one in self._again})

    def _end_comparison(self) -> None:
        """Wait for the comparison under way and forget it: the archive is this thread's until the next."""
        if self._comparing is not None:
            wait([self._comparing])
            self._comparing = None

    def _push_missing(self, writer: FlussWriter) -> None:
        """Push as much of what is missing as a step may, from one partition."""
        if not self._again:
            return
        partition, first, _ = self._again[0]
        here = [one for one in self._again if one.partition == partition]
        limit = min(here[-1].last - first + 1, MESSAGES_PER_PARTITION)
        batch = beginning(self._spine.read(partition, first, limit), BYTES_PER_PARTITION)
        wanted = np.zeros(len(batch.payloads), dtype=np.bool_)
        for one in here:
            wanted[one.first - first : one.last + 1 - first] = True
        messages = int(np.count_nonzero(wanted))
        _log.error(
            "the archive lacks messages that Fluss acknowledged; pushing them again",
            topic=partition.topic,
            partition=partition.number,
            offset=first,
            messages=messages,
        )
        rows = rows_of(batch, partition)
        rows = rows.filter(pa.array(wanted[rows["spine_offset"].to_numpy() - first]))
        self._push(writer, {partition.topic: rows})
        REPUSHED.labels(partition.topic).inc(messages)
        self._again = [
            one if one.partition != partition else one._replace(first=max(one.first, batch.next_offset))
            for one in self._again
            if one.partition != partition or one.last >= batch.next_offset
        ]

    def _archived_of(self, positions: Mapping[Partition, int]) -> dict[Partition, int]:
        return {
            partition: min(self._archived.frontier(partition), position)
            for partition, position in positions.items()
        }

    def lag(self) -> dict[Partition, int]:
        """See `Stage.lag`: messages that Fluss has not acknowledged."""
        return {partition: self._spine.end(partition) - offset for partition, offset in self._next.items()}

    def newest_us(self) -> Mapping[str, int]:
        """See `Stage.newest_us`."""
        return self._current.newest_us()

    def close(self) -> None:
        """See `Stage.close`."""
        self._end_comparison()
        self._freeing.after_commit(self._archived_of(self._next), now=True)


def rows_by_topic(batches: Batches) -> dict[str, pa.Table]:
    """Return messages as rows, by topic.

    Raises:
        MalformedMessageError: a message can't be read.
    """
    parts: dict[str, list[pa.Table]] = {}
    for partition, batch in batches:
        parts.setdefault(partition.topic, []).append(rows_of(batch, partition))
    return {topic: pa.concat_tables(tables) for topic, tables in parts.items()}


def rows_of(batch: Batch, partition: Partition) -> pa.Table:
    """Return messages as rows of their table in Fluss.

    Raises:
        MalformedMessageError: a message can't be read.
    """
    _, to_rows = ROWS[partition.topic]
    rows = to_rows(batch, partition)
    if partition.topic == TRADES:
        too_late = trade_records(batch, partition)["late"] == Lateness.TOO_LATE
        return rows.append_column(TOO_LATE, pa.array(too_late))
    if partition.topic == BOOK:
        offsets = rows["spine_offset"].to_numpy()
        _, message, levels = np.unique(offsets, return_inverse=True, return_counts=True)
        return rows.append_column(LEVELS, pa.array(levels[message], LEVELS.type))
    return rows
