"""Reading the Iceberg tables of one namespace: every reader sees one snapshot and needs no lock.

`iceberg_catalog` says where each table is, `iceberg_files` reads data files, `iceberg_partitions` says what
the manifests know of them. `iceberg` writes.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from types import TracebackType
from typing import Final, Self

import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as PyIcebergTable
from pyiceberg.table.snapshots import Snapshot

from lakehouse.home import Home
from lakehouse.market.product import checked_product
from lakehouse.stores.iceberg_catalog import answering, create_tables, open_catalog
from lakehouse.stores.iceberg_commit import OFFSET, PREFIX, IcebergStoreError, Manifests, carried, counted
from lakehouse.stores.iceberg_files import PartitionKey, field_ids, read_files
from lakehouse.stores.iceberg_maintenance import readable, tags_of
from lakehouse.stores.iceberg_partitions import PartitionStats, in_order, may_hold, statistics
from lakehouse.stores.kept_catalog import KeptCatalog
from lakehouse.stores.lock import held
from lakehouse.stores.schemas import TABLES, Table
from lakehouse.stores.versions import Version

_ROWS_OF_A_PIECE: Final = 1_000_000


class SnapshotGoneError(IcebergStoreError):
    """A snapshot that was asked for has expired; tag a snapshot to keep it."""


class IcebergReader:
    """One namespace's Iceberg tables as they are, or were at a snapshot that has not expired."""

    def __init__(self, catalog: KeptCatalog, home: Home) -> None:
        self._catalog = catalog
        self._home = home
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
                f"{'.'.join(current.name())} has no snapshot {snapshot_id}: it has expired, or never was. "
                "Read a newer one, and tag what must stay readable"
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

    def in_log_order(
        self, table: Table, product: str, day: date, columns: Sequence[str], *, snapshot_id: int | None = None
    ) -> Iterator[pa.Table]:
        """Yield the rows of a product's day in the order of the log, a few files at a time.

        Args:
            table: one of those that the stream writes.
            product, day: whose rows.
            columns: names; `spine_offset` among them.
            snapshot_id: a snapshot that has not expired, the current one where None.

        Raises:
            InvalidProductError: the product is not one.
            SnapshotGoneError: the snapshot has expired.
        """
        files = self.data_files(table, product=product, day=day, snapshot_id=snapshot_id)
        by = [(name, "ascending") for name in table.key if name in columns]
        for piece in in_order(files, self.field_ids(table)["spine_offset"], _ROWS_OF_A_PIECE):
            yield self.read(table, piece, columns=columns, encoded=True).sort_by(by)

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

    def tags(self, table: Table) -> dict[str, int]:
        """Return the tagged snapshots by name; those named `held-until-…` come and go with the ladder."""
        return tags_of(self.current(table))
