"""The Iceberg tables of one namespace: append, replace a partition, tag, maintain; `iceberg_reading` reads.

Every write is one snapshot, made under the table's lock and on top of whatever another program commits
meanwhile. `iceberg_files` writes data files, `iceberg_commit` makes the snapshot, `iceberg_maintenance` keeps
the tables small.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as PyIcebergTable
from pyiceberg.table.snapshots import Operation

from lakehouse.home import Home
from lakehouse.market.product import checked_product
from lakehouse.stores.iceberg_catalog import answering
from lakehouse.stores.iceberg_commit import (
    COMMIT,
    COUNTER,
    FOLLOWS,
    OFFSET,
    PREFIX,
    Change,
    ForeignCommitError,
    IcebergStoreError,
    added_up,
    commit,
    until_committed,
)
from lakehouse.stores.iceberg_files import PartitionKey, split_by_partition, write_files
from lakehouse.stores.iceberg_maintenance import (
    FAN_IN,
    GRACE,
    KEEP_SNAPSHOTS,
    PENDING,
    CompactionResult,
    ExpiryResult,
    compact,
    expire,
    sweep,
)
from lakehouse.stores.iceberg_reading import IcebergReader, SnapshotGoneError
from lakehouse.stores.kept_catalog import KeptCatalog
from lakehouse.stores.lock import TableLocks
from lakehouse.stores.orphans import Sweep
from lakehouse.stores.rows import RowsMismatchError, checked_rows
from lakehouse.stores.schemas import Table
from lakehouse.stores.versions import LADDER, Rung

__all__ = ["ForeignCommitError", "IcebergStore", "IcebergStoreError", "SnapshotGoneError"]


class IcebergStore(IcebergReader):
    """One namespace's Iceberg tables. Use it as a context manager; open one in each process.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from lakehouse.stores.schemas import GAPS
    >>> with IcebergStore.open(Home(Path(tempfile.mkdtemp()), "simulated").create()) as store:
    ...     _ = store.append(GAPS, GAPS.schema.empty_table(), offsets={0: 7})
    ...     store.offsets(GAPS)
    {0: 7}
    """

    def __init__(self, catalog: KeptCatalog, home: Home) -> None:
        super().__init__(catalog, home)
        self._locks = TableLocks(home.locks, "iceberg")

    def lock(self, table: Table) -> AbstractContextManager[None]:
        """Hold the table's writer lock for a block, to read and then write as one step.

        Every writing method takes it itself; within the block they may be called.
        """
        return self._locks.held(table.name)

    def append(
        self,
        table: Table,
        rows: pa.Table,
        *,
        offsets: Mapping[int, int] | None = None,
        counters: Mapping[str, int] | None = None,
    ) -> int | None:
        """Add rows and move offsets and counters, in one snapshot, and return its id.

        Args:
            table: where to.
            rows: the table's columns in any order; may be empty when offsets or counters move.
            offsets: the next offset of partitions of the log; those not named stay.
            counters: added to the cumulative ones.

        Returns:
            The new snapshot, or the current one when there was nothing to write.

        Raises:
            RowsMismatchError: the rows don't fit the table.
            ForeignCommitError: another program dropped the offsets.
            CommitConflictError: other programs left no moment to commit in.
        """
        parts = list(split_by_partition(table, checked_rows(table, rows)))
        if not parts and not offsets and not counters:
            return self.snapshot_id(table)
        with self.lock(table):
            current = self.current(table)
            added = write_files(table, current, parts)
            totals = added_up(current, counters or {})
            change = Change(Operation.APPEND, added, offsets=offsets or {}, properties=totals)
            return self.commit(table, change)

    def replace(
        self,
        table: Table,
        product: str,
        day: date,
        rows: pa.Table,
        *,
        properties: Mapping[str, str] | None = None,
        counters: Mapping[str, int] | None = None,
        files: Sequence[DataFile] | None = None,
    ) -> int:
        """Make `rows` the content of a product's day, in one snapshot, and return its id.

        The rows are sorted by trade_id (where there is one) and lie in one file. What other programs add to
        the day after `files` were read stays beside them.

        Args:
            table: one that is partitioned by day and product.
            product: whose rows.
            day: UTC day.
            rows: all of them of this product and day; none empties the partition.
            properties: more `lakehouse.*` properties, kept with the table from this commit on.
            counters: added to the cumulative ones.
            files: the partition's data files that the rows stand for; all there are where None.

        Raises:
            RowsMismatchError: the rows don't fit the table or the partition.
            FilesReplacedError: another writer has replaced one of the files.
            CommitConflictError: other programs left no moment to commit in.
        """
        if set(table.partition_by) != {"day", "product"}:
            raise IcebergStoreError(f"{table.name} has no partitions by day and product to replace")
        if wrong := [key for key in properties or {} if not key.startswith(PREFIX) or _reserved(key)]:
            raise IcebergStoreError(f"properties must be named {PREFIX}<something of yours>, not {wrong}")
        key = PartitionKey(day, checked_product(product))
        parts = list(split_by_partition(table, checked_rows(table, rows)))
        if [part_key for part_key, _ in parts] not in ([], [key]):
            raise RowsMismatchError(f"rows of {[k.folder for k, _ in parts]} given for {key.folder}")
        with self.lock(table):
            current = self.current(table)
            removed = self.data_files(table, product=product, day=day) if files is None else files
            if any(PartitionKey.of(file) != key for file in removed):
                raise IcebergStoreError(
                    f"files of {table.name} from before it was partitioned by product hold other products' "
                    "rows, too: merge them first (`maintain_tables`)"
                )
            added = write_files(table, current, parts)
            change = Change(
                Operation.OVERWRITE,
                added,
                removed=frozenset(file.file_path for file in removed),
                properties=dict(properties or {}) | added_up(current, counters or {}),
            )
            return self.commit(table, change)

    def replace_days(self, table: Table, product: str, days: Collection[date], rows: pa.Table) -> int | None:
        """Make `rows` the content of a product's days, in one snapshot, and return its id.

        For tables with a few rows a day: they are partitioned by product alone, and the product's rows lie in
        one file, ordered by day and key, that is written anew. Rows of its other days stay, and so does what
        other programs add meanwhile.

        Args:
            table: one that is partitioned by product only.
            product: whose rows.
            days: the UTC days that the rows stand for; a day without a row becomes empty.
            rows: all of them of this product and of these days.

        Returns:
            The new snapshot, or the current one where the days hold just these rows already.

        Raises:
            RowsMismatchError: the rows don't fit the table, the product or the days.
            CommitConflictError: other programs left no moment to commit in.
        """
        if table.partition_by != ("product",):
            raise IcebergStoreError(f"{table.name} is not partitioned by product alone: use replace")
        key = PartitionKey(None, checked_product(product))
        given = checked_rows(table, rows)
        these_days = pa.array(days, pa.date32())
        fits = pc.and_(pc.equal(given["product"], product), pc.is_in(given["day"], these_days))
        if given.num_rows and not pc.all(fits).as_py():
            raise RowsMismatchError(f"rows of other products or days given for {product} on {len(days)} days")
        order = [(name, "ascending") for name in dict.fromkeys(("day", *table.key))]
        with self.lock(table):
            current = self.current(table)
            files = self.data_files(table, product=product)
            there = self.read(table, files)
            others = there.filter(pc.invert(pc.is_in(there["day"], these_days)))
            wanted = pa.concat_tables([others, given.cast(there.schema)]).sort_by(order)
            if wanted.equals(there.sort_by(order)):
                return self.snapshot_id(table)
            parts = [(key, wanted)] if wanted.num_rows else []
            change = Change(
                Operation.OVERWRITE,
                write_files(table, current, parts),
                removed=frozenset(file.file_path for file in files),
            )
            return self.commit(table, change)

    def commit(self, table: Table, change: Change) -> int:
        """Commit a prepared change on top of the newest snapshot; the caller holds the lock.

        Raises:
            FilesReplacedError: a file to remove is not there any more.
            CommitConflictError: other programs left no moment to commit in.
        """
        after = self.update(table, lambda current: commit(current, self._manifests, change))
        assert after.metadata.current_snapshot_id is not None  # it was made just now
        return after.metadata.current_snapshot_id

    def update(self, table: Table, make: Callable[[PyIcebergTable], PyIcebergTable]) -> PyIcebergTable:
        """Commit by `make`, which gets the table as it is and returns it as it is then.

        The caller holds the lock. When another program commits in between, `make` is called again.

        Raises:
            CommitConflictError: other programs left no moment to commit in.
        """
        with answering(self._home):
            return until_committed(lambda: make(self.current(table)))

    def tag(self, table: Table, name: str, snapshot_id: int | None = None) -> None:
        """Name a snapshot (the current one where None), so that it never expires.

        Raises:
            SnapshotGoneError: it has expired, or the table has none.
        """

        def make(current: PyIcebergTable) -> PyIcebergTable:
            snapshot = self._snapshot(current, snapshot_id)
            if snapshot is None:
                raise SnapshotGoneError(f"{table.name} was never written: there is nothing to tag")
            current.manage_snapshots().create_tag(snapshot.snapshot_id, name).commit()
            return current

        with self.lock(table):
            self.update(table, make)

    def untag(self, table: Table, name: str) -> None:
        """Remove a tag; its snapshot expires with the others."""

        def make(current: PyIcebergTable) -> PyIcebergTable:
            current.manage_snapshots().remove_tag(name).commit()
            return current

        with self.lock(table):
            self.update(table, make)

    def compact(self, table: Table, *, fan_in: int = FAN_IN) -> CompactionResult:
        """Write small files of a partition together, in one snapshot; see `iceberg_maintenance`.

        Args:
            table: what to compact.
            fan_in: files of one size class that a partition may have before they are merged.
        """
        return compact(self, table, fan_in)

    def expire(
        self,
        table: Table,
        *,
        keep: int = KEEP_SNAPSHOTS,
        grace: timedelta = GRACE,
        ladder: Sequence[Rung] = LADDER,
    ) -> ExpiryResult:
        """Forget old snapshots and delete files that nothing names any more.

        Snapshots that somebody tagged stay, and so does what the ladder wants.

        Args:
            table: what to expire.
            keep: newest snapshots that stay.
            grace: how long a file must have been unnamed before it is deleted, for readers still at it.
            ladder: the moments whose state stays readable.
        """
        return expire(self, table, keep, grace, ladder)

    def sweep(self, table: Table, *, grace: timedelta = GRACE, pending: timedelta = PENDING) -> Sweep:
        """Look through the table's folder for files that nothing names, and delete those that are due.

        Args:
            table: where to look.
            grace: how long a file must have been unnamed.
            pending: the same for a file that no snapshot has named yet: it may wait for its commit.
        """
        return sweep(self, table, grace, pending)

    def maintain(self, table: Table) -> None:
        """Compact and expire what is due; cheap when nothing is, so call it after each commit."""
        metadata = self.current(table).metadata
        tagged = {ref.snapshot_id for ref in metadata.refs.values()}
        if len(metadata.snapshots) - len(tagged) >= 2 * KEEP_SNAPSHOTS:
            self.compact(table)
            self.expire(table)


def _reserved(key: str) -> bool:
    return key in (COMMIT, FOLLOWS) or key.startswith((OFFSET, COUNTER))
