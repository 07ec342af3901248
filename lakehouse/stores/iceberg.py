"""The Iceberg tables of one namespace: append, replace a partition, scan, tag, maintain.

The catalog is an SQLite file, the warehouse lies beside it. Every write is one snapshot, made under the
table's lock; readers need no lock and see one snapshot. `iceberg_files` writes and describes data files,
`iceberg_commit` makes the snapshot, `iceberg_maintenance` keeps the tables small.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as PyIcebergTable
from pyiceberg.table.snapshots import Operation, Snapshot
from sqlalchemy import select
from sqlalchemy.engine import URL

from lakehouse.home import Home
from lakehouse.market.product import checked_product
from lakehouse.stores.iceberg_commit import (
    COMMIT,
    COUNTER,
    OFFSET,
    PREFIX,
    Change,
    ForeignCommitError,
    IcebergStoreError,
    Manifests,
    carried,
    commit,
)
from lakehouse.stores.iceberg_files import (
    PartitionKey,
    iceberg_schema,
    partition_spec,
    read_files,
    split_by_partition,
    write_files,
)
from lakehouse.stores.iceberg_maintenance import (
    FAN_IN,
    GRACE,
    KEEP_SNAPSHOTS,
    CompactionResult,
    ExpiryResult,
    compact,
    expire,
)
from lakehouse.stores.iceberg_partitions import PartitionStats, may_hold, statistics
from lakehouse.stores.lock import TableLocks, held
from lakehouse.stores.rows import RowsMismatchError, checked_rows
from lakehouse.stores.schemas import TABLES, Table

__all__ = [
    "ForeignCommitError",
    "IcebergStore",
    "IcebergStoreError",
    "PartitionStats",
    "SnapshotChangedError",
    "SnapshotGoneError",
]

_TABLE_PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    # Old metadata files stay named this long; expire deletes them after that.
    "write.metadata.previous-versions-max": "10",
}


class SnapshotChangedError(IcebergStoreError):
    """Another writer committed since the snapshot that a replacement was prepared on."""


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

    def __init__(self, catalog: SqlCatalog, home: Home) -> None:
        self._catalog = catalog
        self._home = home
        self._locks = TableLocks(home.locks, "iceberg")
        self._tables: dict[str, PyIcebergTable] = {}
        self._manifests = Manifests()

    @classmethod
    def open(cls, home: Home) -> Self:
        """Open the catalog; create it and the tables where they are absent.

        Raises:
            IcebergStoreError: a table there has other columns than `schemas` says.
        """
        home.iceberg.mkdir(parents=True, exist_ok=True)
        uri = URL.create("sqlite", database=str(home.iceberg / "catalog.db")).render_as_string()
        with held(home.locks, "iceberg-catalog"):
            catalog = SqlCatalog(home.namespace, uri=uri, warehouse=str(home.iceberg / "warehouse"))
            store = cls(catalog, home)
            catalog.create_namespace_if_not_exists(home.namespace)
            for table in TABLES.values():
                if table.store == "iceberg":
                    store._create(table)
        return store

    def _create(self, table: Table) -> None:
        name = (self._home.namespace, table.name)
        location = str(self._home.iceberg / "warehouse" / table.name)
        try:
            found = self._catalog.load_table(name)  # first: creating writes a file before it looks
        except NoSuchTableError:
            found = self._catalog.create_table(
                name, iceberg_schema(table), location, partition_spec(table), properties=_TABLE_PROPERTIES
            )
        if found.schema().as_struct() != iceberg_schema(table).as_struct():
            raise IcebergStoreError(
                f"the table {table.name} in {self._home.iceberg} has other columns than this version writes: "
                "use an empty LAKEHOUSE_HOME"
            )
        self._tables[table.name] = found

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
        """Return the table as the catalog has it now; its metadata is parsed only when it changed."""
        cached = self._tables.get(table.name)
        if cached is not None:
            with self._catalog.engine.connect() as connection:
                location = connection.execute(
                    select(IcebergTables.metadata_location).where(
                        IcebergTables.catalog_name == self._catalog.name,
                        IcebergTables.table_namespace == self._home.namespace,
                        IcebergTables.table_name == table.name,
                    )
                ).scalar_one()
            if location == cached.metadata_location:
                return cached
        loaded = self._catalog.load_table((self._home.namespace, table.name))
        self._tables[table.name] = loaded
        return loaded

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
            ForeignCommitError: another program committed and dropped them.
        """
        current = self.current(table)
        kept = {key: value for key, value in current.metadata.properties.items() if key.startswith(PREFIX)}
        return kept | carried(current)

    def offsets(self, table: Table) -> dict[int, int]:
        """Return the next offset of each partition of the log; empty before the first commit.

        Raises:
            ForeignCommitError: another program committed and dropped them.
        """
        found = carried(self.current(table))
        return {
            int(key.removeprefix(OFFSET)): int(value)
            for key, value in found.items()
            if key.startswith(OFFSET)
        }

    def counters(self, table: Table) -> dict[str, int]:
        """Return the cumulative counters by name."""
        return _counters(self.current(table))

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

        Within a file rows are in the order of trade_id (where there is one); files come in no order.

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
        row_product = product if "product" not in table.partition_by else None
        return read_files(table, [file.file_path for file in files], columns, row_product, encoded=encoded)

    def partitions(self, table: Table, *, snapshot_id: int | None = None) -> list[PartitionStats]:
        """Return what each partition holds, ordered by day and product; reads manifests only."""
        current = self.current(table)
        return statistics(table, self._manifests.files(current, self._snapshot(current, snapshot_id)))

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
            ForeignCommitError: another program committed and dropped the offsets.
        """
        parts = list(split_by_partition(table, checked_rows(table, rows)))
        if not parts and not offsets and not counters:
            return self.snapshot_id(table)
        with self.lock(table):
            current = self.current(table)
            before = _counters(current)
            added = write_files(table, Path(current.metadata.location), parts)
            totals = {
                f"{COUNTER}{name}": str(before.get(name, 0) + value)
                for name, value in (counters or {}).items()
            }
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
        expected_snapshot: int | None = None,
    ) -> int:
        """Make `rows` the whole content of a product's day, in one snapshot, and return its id.

        The rows are sorted by trade_id (where there is one) and lie in one file.

        Args:
            table: one that is partitioned by day and product.
            product: whose rows.
            day: UTC day.
            rows: all of them of this product and day; none empties the partition.
            properties: more `lakehouse.*` properties, kept with the table from this commit on.
            expected_snapshot: refuse if the current snapshot is another.

        Raises:
            RowsMismatchError: the rows don't fit the table or the partition.
            SnapshotChangedError: the current snapshot is not the expected one.
        """
        if "product" not in table.partition_by:
            raise IcebergStoreError(f"{table.name} has no partitions by product to replace")
        if wrong := [key for key in properties or {} if not key.startswith(PREFIX) or _reserved(key)]:
            raise IcebergStoreError(f"properties must be named {PREFIX}<something of yours>, not {wrong}")
        key = PartitionKey(day, checked_product(product))
        parts = list(split_by_partition(table, checked_rows(table, rows)))
        if [part_key for part_key, _ in parts] not in ([], [key]):
            raise RowsMismatchError(f"rows of {[k.folder for k, _ in parts]} given for {key.folder}")
        with self.lock(table):
            current = self.current(table)
            snapshot = current.current_snapshot()
            if expected_snapshot is not None and expected_snapshot != (snapshot and snapshot.snapshot_id):
                raise SnapshotChangedError(
                    f"{table.name} is at snapshot {snapshot and snapshot.snapshot_id}, not at "
                    f"{expected_snapshot}: read the partition again"
                )
            removed = self.data_files(table, product=product, day=day)
            added = write_files(table, Path(current.metadata.location), parts)
            change = Change(
                Operation.OVERWRITE,
                added,
                removed=frozenset(file.file_path for file in removed),
                properties=properties or {},
            )
            return self.commit(table, change)

    def commit(self, table: Table, change: Change) -> int:
        """Commit a prepared change on top of the newest snapshot; the caller holds the lock.

        Raises:
            FilesReplacedError: a file to remove is not there any more.
        """
        self._tables[table.name], snapshot = commit(self.current(table), self._manifests, change)
        return snapshot.snapshot_id

    def use(self, table: Table, current: PyIcebergTable) -> None:
        """Take the table as it is after a change of metadata; the caller holds the lock."""
        self._tables[table.name] = current

    def named_files(self, table: Table) -> set[str]:
        """Return the paths of all files that a snapshot, a tag or the metadata log needs."""
        current = self.current(table)
        named = {current.metadata_location, *(entry.metadata_file for entry in current.metadata.metadata_log)}
        for snapshot in current.metadata.snapshots:
            manifests = self._manifests.of(current, snapshot)
            named.add(snapshot.manifest_list)
            named |= {manifest.manifest_path for manifest in manifests}
            named |= {file.file_path for file in self._manifests.files(current, snapshot)}
        return named

    def tag(self, table: Table, name: str, snapshot_id: int | None = None) -> None:
        """Name a snapshot (the current one where None), so that it never expires.

        Raises:
            SnapshotGoneError: it has expired, or the table has none.
        """
        with self.lock(table):
            current = self.current(table)
            snapshot = self._snapshot(current, snapshot_id)
            if snapshot is None:
                raise SnapshotGoneError(f"{table.name} was never written: there is nothing to tag")
            current.manage_snapshots().create_tag(snapshot.snapshot_id, name).commit()

    def untag(self, table: Table, name: str) -> None:
        """Remove a tag; its snapshot expires with the others."""
        with self.lock(table):
            self.current(table).manage_snapshots().remove_tag(name).commit()

    def tags(self, table: Table) -> dict[str, int]:
        """Return the tagged snapshots by name."""
        refs = self.current(table).metadata.refs
        return {name: ref.snapshot_id for name, ref in refs.items() if ref.snapshot_ref_type == "tag"}

    # Maintenance

    def compact(self, table: Table, *, fan_in: int = FAN_IN) -> CompactionResult:
        """Write small files of a partition together, in one snapshot; see `iceberg_maintenance`.

        Args:
            table: what to compact.
            fan_in: files of one size class that a partition may have before they are merged.
        """
        return compact(self, table, fan_in)

    def expire(self, table: Table, *, keep: int = KEEP_SNAPSHOTS, grace: timedelta = GRACE) -> ExpiryResult:
        """Forget old snapshots and delete files that nothing names any more; tagged snapshots stay.

        Args:
            table: what to expire.
            keep: newest snapshots that stay.
            grace: how long a file must have been unnamed before it is deleted, for readers still at it.
        """
        return expire(self, table, keep, grace)

    def maintain(self, table: Table) -> None:
        """Compact and expire what is due; cheap when nothing is, so call it after each commit."""
        current = self.current(table)
        if len(current.metadata.snapshots) >= 2 * KEEP_SNAPSHOTS:
            self.compact(table)
            self.expire(table)


def _reserved(key: str) -> bool:
    return key == COMMIT or key.startswith((OFFSET, COUNTER))


def _counters(current: PyIcebergTable) -> dict[str, int]:
    return {
        key.removeprefix(COUNTER): int(value)
        for key, value in current.metadata.properties.items()
        if key.startswith(COUNTER)
    }
