"""The archive stage: everything in the log into the Iceberg tables, each message once."""

import time
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from typing import Final

import pyarrow as pa

from lakehouse.market.columns import microseconds
from lakehouse.stores.duplicates import duplicates_counter
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import TRADES, Table
from streaming.engines.embedded.decode import ROWS
from streaming.engines.embedded.known_trades import KnownTrades
from streaming.engines.embedded.stage import Freeing, StepResult, TopicReader, beginning, lag_of, offsets_of
from streaming.engines.metrics import COMMIT_SECONDS
from streaming.spine import topics
from streaming.spine.contract import Partition, Spine

MESSAGES_PER_PARTITION = 100_000
"""Messages a step takes from each partition of a topic at most."""

BYTES_PER_PARTITION = 16 * 2**20
"""Payload a step takes from each partition at most: a message of the book may hold thousands of levels."""


BESIDE_FLINK: Final = (topics.GAPS, topics.QUARANTINE, topics.INTAKE)
"""The topics left to this stage where Flink archives the market: they are small, and not in Fluss."""


class ArchiveStage:
    """A `Stage` that fills the Iceberg tables; a commit carries the next offsets of its topic.

    The tables of topics that another engine archives it only keeps small: Flink merges and deletes no files.

    A trade is archived once by (product, trade_id), whatever the log says. Trades that the archive holds
    already are counted in the same commit (`lakehouse.stores.duplicates`).
    """

    name = topics.ARCHIVE

    def __init__(self, spine: Spine, store: IcebergStore, archived: Collection[str] = tuple(ROWS)) -> None:
        """Start where the tables say.

        Args:
            spine: the log.
            store: the tables.
            archived: the topics to archive; another engine archives the others.
        """
        self._spine = spine
        self._store = store
        self._known = KnownTrades(store)
        self._readers = {topic: self._opened(topic) for topic in ROWS if topic in archived}
        self._in_doubt: set[str] = set()
        self._newest_us: dict[str, int] = {}
        self._freeing = Freeing(spine, topics.ARCHIVE, synced=True)

    def _opened(self, topic: str) -> TopicReader:
        table, _ = ROWS[topic]
        return TopicReader(self._spine, topic, self._store.offsets(table))

    def step(self) -> StepResult:
        """See `Stage.step`. Each table is committed by itself; one that fails holds up no other.

        Raises:
            ExceptionGroup: more than one table failed.
        """
        messages: dict[str, int] = {}
        errors: list[Exception] = []
        duplicates, behind = 0, False
        for topic in ROWS:
            try:
                if topic not in self._readers:
                    self._store.maintain(ROWS[topic][0])
                    continue
                if topic in self._in_doubt:
                    self._readers[topic] = self._opened(topic)
                    self._in_doubt.remove(topic)
                taken, known, more = self._archive(topic)
            except Exception as error:  # noqa: BLE001  # raised below, when the other tables had their turn
                # Whether the commit happened only the table knows.
                self._in_doubt.add(topic)
                self._known.forget()
                errors.append(error)
                continue
            if taken:
                messages[topic] = taken
            duplicates += known
            behind |= more
        if len(errors) > 1:
            raise ExceptionGroup("several tables of the archive failed", errors)
        if errors:
            raise errors[0]
        self._freeing.after_commit(offsets_of(self._readers.values()))
        return StepResult(messages, behind, duplicates)

    def _archive(self, topic: str) -> tuple[int, int, bool]:
        """Commit what is next in a topic; return its messages, duplicates, and whether there is more."""
        table, to_rows = ROWS[topic]
        reader = self._readers[topic]
        read = reader.read(MESSAGES_PER_PARTITION)
        batches = [(partition, beginning(batch, BYTES_PER_PARTITION)) for partition, batch in read]
        if not batches:
            return 0, 0, False
        started = time.perf_counter()
        rows = pa.concat_tables([to_rows(batch, partition) for partition, batch in batches])
        offsets = {partition.number: batch.next_offset for partition, batch in batches}
        duplicates = 0
        with ExitStack() as stack:
            if table is TRADES:
                stack.enter_context(self._store.lock(table))
                duplicates = self._append_trades(rows, offsets)
            else:
                self._store.append(table, rows, offsets=offsets)
            COMMIT_SECONDS.labels(topics.ARCHIVE, table.name).observe(time.perf_counter() - started)
            reader.advance(batches)
            self._maintain(table)
        more = any(
            len(batch.payloads) >= MESSAGES_PER_PARTITION or len(batch.payloads) < len(all_read.payloads)
            for (_, batch), (_, all_read) in zip(batches, read, strict=True)
        )
        return sum(len(batch.payloads) for _, batch in batches), duplicates, more

    def _append_trades(self, rows: pa.Table, offsets: Mapping[int, int]) -> int:
        """Append the trades that the table doesn't hold; return how many it does. The lock is held."""
        new = self._known.add_new(rows)
        again = rows.filter(pa.array(~new))
        counters = Counter(
            duplicates_counter(product, day)
            for product, day in zip(again["product"].to_pylist(), again["day"].to_pylist(), strict=True)
        )
        fresh = rows.filter(pa.array(new)) if again.num_rows else rows
        self._known.committed(self._store.append(TRADES, fresh, offsets=offsets, counters=counters))
        newest = rows.group_by("product").aggregate([("event_time", "max")])
        for product, event_us in zip(
            newest["product"].to_pylist(), microseconds(newest["event_time_max"]).tolist(), strict=True
        ):
            self._newest_us[product] = max(event_us, self._newest_us.get(product, 0))
        return int(again.num_rows)

    def _maintain(self, table: Table) -> None:
        """Keep a table small; for trades the lock is held, so the snapshots this makes are ours."""
        ours = table is TRADES and self._known.unchanged()
        self._store.maintain(table)
        if ours:
            self._known.committed(self._store.snapshot_id(TRADES))

    def lag(self) -> dict[Partition, int]:
        """See `Stage.lag`."""
        return lag_of(self._readers.values())

    def newest_us(self) -> Mapping[str, int]:
        """See `Stage.newest_us`; what this process has archived."""
        return dict(self._newest_us)

    def close(self) -> None:
        """See `Stage.close`."""
        self._freeing.after_commit(offsets_of(self._readers.values()), now=True)
