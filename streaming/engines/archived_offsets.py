"""What the archive holds of the log, by the archive's own data files.

Flink takes the market to the archive and keeps its own account of how far it is; this one trusts neither it
nor Fluss. It reads what is in the tables and asks of each message of the log whether it is there.
"""

from collections import defaultdict
from collections.abc import Iterable, Set
from typing import Final

import numpy as np
import numpy.typing as npt
from pyiceberg.manifest import DataFile

from lakehouse.market.book import BOOK_HEADER
from lakehouse.market.trade_ids import TradeIds
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.iceberg_files import PartitionKey, read_files
from lakehouse.stores.iceberg_partitions import bounds_of
from lakehouse.stores.schemas import BOOK, QUOTES, TRADES, Table
from streaming.engines.embedded.decode import products, trade_records
from streaming.spine import topics
from streaming.spine.contract import Batch, OffsetAheadError, Partition, Spine, partition_number

TABLES: Final = {topics.TRADES: TRADES, topics.QUOTES: QUOTES, topics.BOOK: BOOK}

LOOK_AT: Final = 2_000
"""Messages read from the log at once to see whether they are held in another way than by their offset.

One read costs about as much as one message's, so the holes of a repeated stretch share it.
"""

FILES_AT_ONCE: Final = 64

_LEVEL_BITS: Final = 24

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.intp]


class ArchivedOffsets:
    """Which messages of `trades`, `quotes` and `book` the archive holds.

    A message is held when the archive has all its rows; a trade also when the archive has its (product,
    trade_id) from another message or from a backfill; and a message that makes no rows always is. What lies
    before the bridge's committed offset is held, and what is held stays so: each data file is read once, and
    one that holds nothing new (a compacted one, a sealed one) not at all.
    """

    def __init__(self, store: IcebergStore, spine: Spine) -> None:
        """Look at nothing yet.

        Args:
            store: the archive.
            spine: the log; its messages from the bridge's committed offsets on are there.

        Raises:
            SpineError: the log did not answer.
        """
        self._store = store
        self._spine = spine
        self._start = {
            partition: max(spine.committed(topics.BRIDGE, partition) or 0, spine.start(partition))
            for topic in TABLES
            for partition in (Partition(topic, number) for number in range(spine.partitions))
        }
        self._held = {partition: TradeIds() for partition in self._start}
        self._levels = {partition: np.empty(0, dtype=np.int64) for partition in self._start}
        self._newest: dict[Partition, dict[str, int]] = {partition: {} for partition in self._start}
        self._read: dict[str, set[str]] = {topic: set() for topic in TABLES}
        self._ids = _ArchivedIds(store)

    def refresh(self) -> None:
        """Take in the data files that came since the last call.

        Raises:
            IcebergStoreError: the archive can't be read.
            SpineError: the log did not answer, or ends before what came from it.
        """
        for topic, table in TABLES.items():
            reached = set()
            files = {file.file_path: file for file in self._store.data_files(table)}
            new = [file for path, file in files.items() if path not in self._read[topic]]
            if topic == topics.TRADES:
                self._ids.know(new, self._read[topic] - files.keys())
            wanted: dict[Partition, list[str]] = defaultdict(list)
            for file in new:
                partition = self._partition_of(topic, file)
                self._reach(partition, table, file)
                reached.add(partition)
                if not self._knows_all(partition, table, file):
                    wanted[partition].append(file.file_path)
            for partition in reached:
                self._check_end(partition)
            for partition, paths in wanted.items():
                for at in range(0, len(paths), FILES_AT_ONCE):
                    self._take_in(partition, table, paths[at : at + FILES_AT_ONCE])
            self._read[topic] = set(files)

    def frontier(self, partition: Partition) -> int:
        """Return the first offset, from the group's committed one on, that the archive doesn't hold.

        Raises:
            SpineError: the log did not answer.
        """
        held = self._held[partition]
        end = self._spine.end(partition)
        position = held.first_missing_from(self._start[partition])
        while position < end:
            self._look(partition, position, LOOK_AT)
            if position not in held:
                break
            position = held.first_missing_from(position)
        self._start[partition] = position
        held.forget_below(position)
        return position

    def reached(self, partition: Partition) -> int:
        """Return the lowest of what its products have come to: each one's newest offset in the archive.

        A product's messages come in their order. So what the archive lacks before this was passed by.
        """
        return min(self._newest[partition].values(), default=0)

    def holes(self, partition: Partition, end: int) -> list[tuple[int, int]]:
        """Return the ranges of offsets before `end`, both ends included, that the archive lacks.

        A long range is looked into only as far as the first messages that are missing for certain: what
        follows them there counts as missing too.

        Raises:
            SpineError: the log did not answer.
        """
        held = self._held[partition]
        start = looked = self._start[partition]
        for first, last in held.missing_between(start, end - 1):
            position = max(first, looked)
            while position <= last:
                looked = self._look(partition, position, LOOK_AT)
                if looked == position or held.missing_between(position, min(last, looked - 1)):
                    break
                position = looked
        return held.missing_between(start, end - 1)

    def _partition_of(self, topic: str, file: DataFile) -> Partition:
        product = PartitionKey.of(file).product
        if product is None:
            raise AssertionError(f"{file.file_path} is of no product")
        return Partition(topic, partition_number(product, self._spine.partitions))

    def _reach(self, partition: Partition, table: Table, file: DataFile) -> None:
        bounds = bounds_of(file, self._store.field_ids(table)["spine_offset"])
        product = PartitionKey.of(file).product
        if bounds is not None and product is not None and bounds[1] >= 0:  # a backfilled row has no place
            newest = self._newest[partition]
            newest[product] = max(newest.get(product, 0), bounds[1])

    def _check_end(self, partition: Partition) -> None:
        newest, end = max(self._newest[partition].values(), default=-1), self._spine.end(partition)
        if newest >= end:
            raise OffsetAheadError(partition, newest + 1, end)

    def _knows_all(self, partition: Partition, table: Table, file: DataFile) -> bool:
        """Tell by a file's bounds whether all its offsets are held already."""
        bounds = bounds_of(file, self._store.field_ids(table)["spine_offset"])
        if bounds is None:
            return False
        lowest, highest = max(bounds[0], self._start[partition]), bounds[1]
        return highest < lowest or self._held[partition].covers(lowest, highest)

    def _take_in(self, partition: Partition, table: Table, paths: list[str]) -> None:
        columns = ["spine_partition", "spine_offset", *(["level"] if table is BOOK else [])]
        rows = read_files(table, self._store.field_ids(table), paths, columns, None)
        offsets: Int64s = rows["spine_offset"].to_numpy()
        # A backfilled row has no place in the log.
        wanted = (rows["spine_partition"].to_numpy() == partition.number) & (
            offsets >= self._start[partition]
        )
        if table is BOOK:
            self._take_in_levels(partition, offsets[wanted], rows["level"].to_numpy()[wanted])
        else:
            self._held[partition].add_new(np.sort(offsets[wanted]))

    def _take_in_levels(self, partition: Partition, offsets: Int64s, levels: npt.NDArray[np.int32]) -> None:
        """Take a message for held once all its levels are there, be it from several commits."""
        unknown = ~self._held[partition].contains(offsets)
        found = offsets[unknown] << _LEVEL_BITS | levels[unknown]
        self._levels[partition] = np.union1d(self._levels[partition], found)
        there = TradeIds()
        there.add_new(np.unique(self._levels[partition] >> _LEVEL_BITS))
        looked = 0
        for first, last in there:
            position = max(first, looked)
            while position <= last:
                position = looked = self._look(partition, position, min(LOOK_AT, last - position + 1))

    def _look(self, partition: Partition, first: int, limit: int) -> int:
        """Read messages and take those for held that are in another way than by their offset.

        Returns:
            The offset after them, `first` where the log ends.
        """
        batch = self._spine.read(partition, first, limit)
        offsets = np.arange(batch.first_offset, batch.next_offset)
        unknown = np.flatnonzero(~self._held[partition].contains(offsets))
        if not len(unknown):
            return batch.next_offset
        held = offsets[unknown[self._are_held(partition, batch, unknown)]]
        self._held[partition].add_new(held)
        if partition.topic == topics.BOOK:
            levels = self._levels[partition]
            self._levels[partition] = levels[~np.isin(levels >> _LEVEL_BITS, held)]
        return batch.next_offset

    def _are_held(self, partition: Partition, batch: Batch, which: Positions) -> Bools:
        if partition.topic == topics.TRADES:
            return self._trades_are_held(batch, partition, which)
        if partition.topic == topics.BOOK:
            return self._books_are_held(batch, partition, which)
        return np.zeros(len(which), dtype=np.bool_)

    def _trades_are_held(self, batch: Batch, partition: Partition, which: Positions) -> Bools:
        records = trade_records(batch, partition)
        names, codes = products(records, batch, partition)
        trade_ids = np.ascontiguousarray(records["trade_id"])[which]
        held = np.zeros(len(which), dtype=np.bool_)
        for code in np.unique(codes[which]).tolist():
            here = codes[which] == code
            held[here] = self._ids.contain(names[code], trade_ids[here])
        return held

    def _books_are_held(self, batch: Batch, partition: Partition, which: Positions) -> Bools:
        chosen = [batch.payloads[at][: BOOK_HEADER.itemsize] for at in which.tolist()]
        headers = np.frombuffer(b"".join(chosen), BOOK_HEADER)
        there = self._levels[partition] >> _LEVEL_BITS
        offsets = batch.first_offset + which
        levels = np.searchsorted(there, offsets, side="right") - np.searchsorted(there, offsets)
        held: Bools = levels == headers["levels"]
        return held


class _ArchivedIds:
    """The trade ids in the archive, read from it only as far as somebody asks."""

    def __init__(self, store: IcebergStore) -> None:
        self._store = store
        self._files: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
        self._read: set[str] = set()
        self._ids: dict[str, TradeIds] = defaultdict(TradeIds)

    def know(self, new: Iterable[DataFile], gone: Set[str]) -> None:
        """Take note of the data files of `trades` that have come and gone."""
        for files in self._files.values():
            for path in gone & files.keys():
                del files[path]
        self._read -= gone
        for file in new:
            bounds = bounds_of(file, self._store.field_ids(TRADES)["trade_id"])
            if bounds is None:
                raise AssertionError(f"{file.file_path} says nothing of its trade ids")
            self._files[str(PartitionKey.of(file).product)][file.file_path] = bounds

    def contain(self, product: str, trade_ids: Int64s) -> Bools:
        """Tell of each of a product's trades whether the archive has it."""
        lowest, highest = int(trade_ids.min()), int(trade_ids.max())
        known = self._ids[product]
        for path, (first, last) in self._files.get(product, {}).items():
            if path not in self._read and first <= highest and lowest <= last:
                ids = self._store.field_ids(TRADES)
                rows = read_files(TRADES, ids, [path], ["trade_id"], None)
                known.add_new(np.sort(rows["trade_id"].to_numpy()))
                self._read.add(path)
        return known.contains(trade_ids)
