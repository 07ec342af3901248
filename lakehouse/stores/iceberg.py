"""The Iceberg tables of one namespace: append, replace a partition, scan, tag, maintain.

Every write is one snapshot, made under the table's lock and on top of whatever another program commits
meanwhile; readers need no lock and see one snapshot. `iceberg_catalog` says where each table is,
`iceberg_files` writes and describes data files, `iceberg_commit` makes the snapshot, `iceberg_maintenance`
keeps the tables small.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, timedelta
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as PyIcebergTable
from pyiceberg.table.snapshots import Operation, Snapshot

from lakehouse.home import Home
from lakehouse.market.product import checked_product
from lakehouse.stores.iceberg_catalog import answering, create_tables, open_catalog
from lakehouse.stores.iceberg_commit import (
    COMMIT,
    COUNTER,
    FOLLOWS,
    OFFSET,
    PREFIX,
    Change,
    ForeignCommitError,
    IcebergStoreError,
    Manifests,
    added_up,
    carried,
    commit,
    counted,
    until_committed,
)
from lakehouse.stores.iceberg_files import (
    PartitionKey,
    field_ids,
    read_files,
    split_by_partition,
    write_files,
)
from lakehouse.stores.iceberg_maintenance import (
    FAN_IN,
    GRACE,
    KEEP_SNAPSHOTS,
    PENDING,
    CompactionResult,
    ExpiryResult,
    compact,
    expire,
    readable,
    sweep,
    tags_of,
)
from lakehouse.stores.iceberg_partitions import PartitionStats, may_hold, statistics
from lakehouse.stores.kept_catalog import KeptCatalog
from lakehouse.stores.lock import TableLocks, held
from lakehouse.stores.orphans import Sweep
from lakehouse.stores.rows import RowsMismatchError, checked_rows
from lakehouse.stores.schemas import TABLES, Table
from lakehouse.stores.versions import LADDER, Rung, Version

__all__ = [
    "ForeignCommitError",
    "IcebergStore",
    "IcebergStoreError",
    "PartitionStats",
    "SnapshotGoneError",
]


class SnapshotGoneError(IcebergStoreError):
    """A snapshot that was asked for has expired; tag a snapshot to keep it."""


class IcebergStore:
    """One namespace's Iceberg tables. Use it as a context manager; open one in each process.

    >>> import tempfile
    >>> from lakehouse.stores.schemas import GAPS
    >>> with IcebergStore.open(Home(Path(tempfile.mkdtemp()), "simulated").create()) as store:
    ...     _ = store.append(GAPS, GAPS.schema.empty_table(), offsets={0: 7})
    ...     store.offsets(GAPS)
    {0: 7}
    """

    def __init__(self, catalog: KeptCatalog, home: Home) -> None:
        self._catalog = catalog
        self._home = home
        self._locks = TableLocks(home.locks, "iceberg")
        self._manifests = Manifests()

    @classmethod
    def open(cls, home: Home, tables: Iterable[Table] = TABLES.values()) -> Self:
        """Open the catalog; create it and the tables where they are absent, evolve older ones.

        Args:
            home: whose tables.
            tables: the only ones that will be asked for; the others may have any columns.

        Raises:
            CatalogError: the catalog can't be reached or is not this home's.
            IcebergStoreError: a table there has other columns than `schemas` says, and can't be evolved.
        """
        home.iceberg.mkdir(parents=True, exist_ok=True)
        with held(home.locks, "iceberg-catalog"):
            catalog = open_catalog(home)
            try:
                create_tables(catalog, home, tables)
                return cls(catalog, home)
            except BaseException:
                catalog.close()
                raise

    def close(self) -> None:
        """Release the catalog's connection."""
        self._catalog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def lock(self, table: Table) -> AbstractContextManager[None]:
        """Hold the table's writer lock for a block, to read and then write as one step.

        Every writing method takes it itself; within the block they may be called.
        """
        return self._locks.held(table.name)

    # Reading

    def current(self, table: Table) -> PyIcebergTable:
        """Return the table as the catalog has it now; its metadata is parsed only when it changed.

        Raises:
            CatalogError: the catalog doesn't answer.
        """
        with answering(self._home):
            return self._catalog.load_table((self._home.namespace, table.name))

    def _snapshot(self, current: PyIcebergTable, snapshot_id: int | None) -> Snapshot | None:
        if snapshot_id is None:
            return current.current_snapshot()
        snapshot = current.snapshot_by_id(snapshot_id)
        if snapshot is None:
            raise SnapshotGoneError(
                f"snapshot {snapshot_id} of {'.'.join(current.name())} has expired: read a newer one, and "
                "tag what must stay readable"
            )
        return snapshot

    def snapshot_id(self, table: Table) -> int | None:
        """Return the current snapshot, None for a table never written."""
        snapshot = self.current(table).current_snapshot()
        return snapshot.snapshot_id if snapshot else None

    def properties(self, table: Table) -> dict[str, str]:
        """Return every `lakehouse.*` property as of the current snapshot.

        Raises:
            ForeignCommitError: another program dropped them.
        """
        current = self.current(table)
        kept = {key: value for key, value in current.metadata.properties.items() if key.startswith(PREFIX)}
        return kept | carried(current)

    def offsets(self, table: Table) -> dict[int, int]:
        """Return the next offset of each partition of the log; empty before the first commit.

        Raises:
            ForeignCommitError: another program dropped them.
        """
        found = carried(self.current(table))
        return {
            int(key.removeprefix(OFFSET)): int(value)
            for key, value in found.items()
            if key.startswith(OFFSET)
        }

    def counters(self, table: Table) -> dict[str, int]:
        """Return the cumulative counters by name."""
        return counted(self.current(table))

    def data_files(
        self,
        table: Table,
        *,
        product: str | None = None,
        day: date | None = None,
        snapshot_id: int | None = None,
    ) -> list[DataFile]:
        """Return the data files of a snapshot that may hold rows of a product and day, by its manifests.

        Raises:
            InvalidProductError: the product is not one.
            SnapshotGoneError: the snapshot has expired.
        """
        if product is not None:
            checked_product(product)
        current = self.current(table)
        files = self._manifests.files(current, self._snapshot(current, snapshot_id))
        return [file for file in files if may_hold(PartitionKey.of(file), product, day)]

    def scan(
        self,
        table: Table,
        *,
        product: str | None = None,
        day: date | None = None,
        columns: Sequence[str] | None = None,
        snapshot_id: int | None = None,
        encoded: bool = False,
    ) -> pa.Table:
        """Return rows of one snapshot, with the columns of the table's schema or those named.

        Within a file of ours rows are in the order of trade_id (where there is one); files come in no order.

        Args:
            table: what to read.
            product: only its rows.
            day: only rows of this UTC day.
            columns: names; all where None.
            snapshot_id: a snapshot that has not expired, the current one where None.
            encoded: leave texts as dictionaries, which is how they lie in the files: a third of the time.

        Raises:
            InvalidProductError: the product is not one.
            SnapshotGoneError: the snapshot has expired.
        """
        files = self.data_files(table, product=product, day=day, snapshot_id=snapshot_id)
        # Files of an earlier partitioning may hold other products, too.
        keys = [PartitionKey.of(file) for file in files]
        row_product = product if any(key.product is None for key in keys) else None
        row_day = day if any(key.day is None for key in keys) else None
        paths = [file.file_path for file in files]
        ids = self.field_ids(table)
        return read_files(table, ids, paths, columns, row_product, day=row_day, encoded=encoded)

    def read(
        self,
        table: Table,
        files: Sequence[DataFile],
        *,
        columns: Sequence[str] | None = None,
        encoded: bool = False,
    ) -> pa.Table:
        """Return all rows of data files, which `data_files` named; columns and texts as in `scan`."""
        paths = [file.file_path for file in files]
        return read_files(table, self.field_ids(table), paths, columns, None, encoded=encoded)

    def field_ids(self, table: Table) -> dict[str, int]:
        """Return the numbers by which data files know the columns, by name."""
        return field_ids(self.current(table))

    def is_evolved(self, table: Table) -> bool:
        """Tell whether older files may have columns of other names and types, or lack some."""
        return len(self.current(table).metadata.schemas) > 1

    def partitions(self, table: Table, *, snapshot_id: int | None = None) -> list[PartitionStats]:
        """Return what each partition holds, ordered by day and product; reads manifests only.

        Raises:
            IcebergStoreError: the table isn't partitioned by day.
        """
        current = self.current(table)
        files = self._manifests.files(current, self._snapshot(current, snapshot_id))
        return statistics(table, field_ids(current), files)

    def row_count(self, table: Table) -> int:
        """Return the number of rows that the current snapshot holds; reads manifests only."""
        return sum(file.record_count for file in self.data_files(table))

    # Writing

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

    def named_files(self, table: Table) -> set[str]:
        """Return the paths of all files that a snapshot or the metadata log needs."""
        return self._manifests.named(self.current(table))

    def files_alone(
        self, current: PyIcebergTable, stretch: Sequence[int], before: int | None, after: int | None
    ) -> set[str]:
        """Return the paths that consecutive snapshots name and their neighbours don't; see `versions`."""
        return self._manifests.alone(current, stretch, before, after)

    def versions(self, table: Table) -> list[Version]:
        """Return the versions that can be read, oldest first."""
        return readable(self.current(table))

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

    def tags(self, table: Table) -> dict[str, int]:
        """Return the tagged snapshots by name; those named `held-until-…` come and go with the ladder."""
        return tags_of(self.current(table))

    # Maintenance

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
