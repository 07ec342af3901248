"""The Paimon tables of one namespace: upsert by primary key, replace a partition, scan, tag, maintain.

Rows are written and read by Paimon's Rust library, which pypaimon falls back from silently: here a missing
native path is an error. Snapshots are committed by pypaimon, because the Rust committer can't put properties
into them. Paimon's commit on a local file system checks and then renames, so every write holds the table's
lock; readers need none and see one snapshot. `paimon_maintenance` keeps the tables small.
"""

import logging
import re
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.compute as pc
from pypaimon import CatalogFactory
from pypaimon.catalog.catalog import Catalog
from pypaimon.snapshot.snapshot import Snapshot
from pypaimon.table.file_store_table import FileStoreTable
from pypaimon_rust.datafusion import PaimonCatalog

from lakehouse.home import Home
from lakehouse.market.product import checked_product
from lakehouse.market.time import day_of
from lakehouse.stores.lock import TableLocks, held
from lakehouse.stores.orphans import Sweep
from lakehouse.stores.paimon_catalog import created_table
from lakehouse.stores.paimon_files import PaimonStoreError, UpsertWriter, entries_of, write_rows
from lakehouse.stores.paimon_history import History, TagFile, newest_snapshot, read_history, set_tag
from lakehouse.stores.paimon_maintenance import (
    FAN_IN,
    GRACE,
    KEEP_SNAPSHOTS,
    CompactionResult,
    ExpiryResult,
    compact,
    expire,
    forget_tag,
    sweep,
)
from lakehouse.stores.rows import RowsMismatchError, checked_rows
from lakehouse.stores.schemas import TABLES, Table
from lakehouse.stores.versions import LADDER, Rung, Version

PREFIX: Final = "lakehouse."
COMMIT: Final = "lakehouse.commit"
"""Number of the commit: in the properties of every snapshot that we made."""

_COMMIT_USER = "lakehouse"
_NOT_FOUND: Final = re.compile(r"Snapshot \d+ does not exist")
_LOOKS: Final = 20
_PAUSE_SECONDS: Final = 0.05
SEQUENCE_FIELDS = dict.fromkeys(
    ("candles_1m", "candles_1h", "candles_1d", "replay_candles_1m"), "trade_count"
)
"""Of two rows with one key the larger wins; of equals the one committed later."""

logging.getLogger("pypaimon").setLevel(logging.WARNING)


class ForeignCommitError(PaimonStoreError):
    """The newest snapshot lacks what every commit of ours carries: the table's properties are not known."""


@dataclass(frozen=True)
class PartitionStats:
    """What the manifests say of a partition; `rows` counts a key once for each file that has it."""

    day: date
    product: str
    rows: int
    files: int
    bytes: int


class PaimonStore:
    """One namespace's Paimon tables. Use it as a context manager; open one in each process.

    Filters only ever hold checked products, dates and numbers, as values: nothing is put into a string.
    """

    def __init__(self, home: Home, catalog: Catalog, native: PaimonCatalog) -> None:
        self._home = home
        self._catalog = catalog
        self._native = native
        self._locks = TableLocks(home.locks, "paimon")
        self._tables: dict[str, FileStoreTable] = {}
        self._writers: dict[str, UpsertWriter] = {}
        self._unmaintained: dict[str, int] = {}
        self._read_tags: dict[str, dict[TagFile, Snapshot]] = {}

    @classmethod
    def open(cls, home: Home) -> Self:
        """Open the warehouse; create the database and the tables where they are absent, evolve older ones.

        Raises:
            PaimonStoreError: a table there has other columns than `schemas` says, and can't be evolved.
        """
        home.paimon.mkdir(parents=True, exist_ok=True)
        options = {"warehouse": str(home.paimon)}
        with held(home.locks, "paimon-catalog"):
            catalog = CatalogFactory.create(options)
            catalog.create_database(home.namespace, True)
            store = cls(home, catalog, PaimonCatalog(options))
            for table in TABLES.values():
                if table.store == "paimon":
                    sequence_field = SEQUENCE_FIELDS[table.name]
                    store._tables[table.name] = created_table(catalog, home, table, sequence_field)
        return store

    def close(self) -> None:
        """Release what the store holds."""
        for writer in self._writers.values():
            writer.native.close()
        self._writers.clear()
        self._tables.clear()

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

    def opened(self, table: Table) -> FileStoreTable:
        """Return pypaimon's table."""
        return self._tables[table.name]

    def names_in(self, table: Table, schema_id: int) -> dict[str, str | None]:
        """Return what the columns are called in files of an earlier schema; None for those it lacks."""
        opened = self.opened(table)
        earlier = {field.id: field.name for field in opened.schema_manager.get_schema(schema_id).fields}
        return {field.name: earlier.get(field.id) for field in opened.table_schema.fields}

    def newest(self, table: Table) -> Snapshot | None:
        """Return the newest snapshot."""
        return newest_snapshot(self.opened(table))

    def snapshot_id(self, table: Table) -> int | None:
        """Return the newest snapshot's id, None for a table never written."""
        snapshot = self.newest(table)
        return snapshot.id if snapshot else None

    def properties(self, table: Table) -> dict[str, str]:
        """Return the `lakehouse.*` properties of the newest snapshot.

        Raises:
            ForeignCommitError: another program committed and dropped them.
        """
        return self.carried(table, self.newest(table))

    def carried(self, table: Table, snapshot: Snapshot | None) -> dict[str, str]:
        """Return the `lakehouse.*` properties of a snapshot; the next commit takes them over.

        Raises:
            ForeignCommitError: it has none.
        """
        if snapshot is None:
            return {}
        found = {key: value for key, value in (snapshot.properties or {}).items() if key.startswith(PREFIX)}
        if COMMIT not in found:
            raise ForeignCommitError(
                f"snapshot {snapshot.id} of {table.name} was committed by another program and lacks the "
                f"lakehouse's properties: roll the table back to snapshot {snapshot.id - 1} before writing"
            )
        return found

    def scan(
        self,
        table: Table,
        *,
        product: str | None = None,
        day: date | None = None,
        start_us: int | None = None,
        end_us: int | None = None,
        columns: Sequence[str] | None = None,
        tag: str | None = None,
    ) -> pa.Table:
        """Return the merged rows of one snapshot, ordered by their key within each partition.

        Args:
            table: what to read.
            product: only its rows.
            day: only rows of this UTC day.
            start_us: only rows whose `start` is at or after this, µs UTC.
            end_us: only rows whose `start` is before this, µs UTC.
            columns: names; all where None.
            tag: read the snapshot with this tag, the newest where None.

        Raises:
            InvalidProductError: the product is not one.
            KeyError: a column that the table doesn't have.
        """
        wanted = list(table.schema.names if columns is None else columns)
        schema = pa.schema([table.schema.field(name).remove_metadata() for name in wanted])
        conditions: list[dict[str, Any]] = []
        if product is not None:
            conditions.append(_condition("equal", "product", checked_product(product)))
        if day is not None:
            conditions.append(_condition("equal", "day", day))
        if start_us is not None:
            conditions.append(_condition("greaterOrEqual", "start", _time(start_us)))
            conditions.append(_condition("greaterOrEqual", "day", day_of(start_us)))
        if end_us is not None:
            conditions.append(_condition("lessThan", "start", _time(end_us)))
            conditions.append(_condition("lessOrEqual", "day", day_of(end_us - 1)))
        native = self._native.get_table((self._home.namespace, table.name))
        builder = native.new_read_builder({"scan.tag-name": tag} if tag else None).with_projection(wanted)
        if conditions:
            builder = builder.with_filter({"method": "and", "children": conditions})
        batches = builder.new_read().read(_planned(builder))
        rows = pa.concat_tables(
            [pa.Table.from_batches([batch]).cast(schema) for batch in batches] or [schema.empty_table()]
        )
        for name, text in table.of_earlier_rows:
            if name in wanted:
                rows = rows.set_column(wanted.index(name), schema.field(name), rows[name].fill_null(text))
        return rows

    def partitions(self, table: Table) -> list[PartitionStats]:
        """Return what each partition holds, ordered by day and product; reads manifests only."""
        grouped: dict[tuple[date, str], list[Any]] = {}
        opened = self.opened(table)
        for entry in entries_of(opened, newest_snapshot(opened)):
            day, product = entry.partition.values
            grouped.setdefault((day, product), []).append(entry.file)
        return [
            PartitionStats(
                day,
                product,
                rows=sum(file.row_count for file in files),
                files=len(files),
                bytes=sum(file.file_size for file in files),
            )
            for (day, product), files in sorted(grouped.items())
        ]

    def row_count(self, table: Table) -> int:
        """Return the number of keys in the table; reads only partitions of more than one file."""
        return sum(
            stats.rows
            if stats.files == 1
            else self.scan(table, product=stats.product, day=stats.day, columns=["day"]).num_rows
            for stats in self.partitions(table)
        )

    # Writing

    def upsert(
        self, table: Table, rows: pa.Table, *, properties: Mapping[str, str | None] | None = None
    ) -> int:
        """Write rows over those with the same keys, in one snapshot, and return its id.

        A row with a smaller value in the table's sequence field than the one there changes nothing.

        Args:
            table: where to.
            rows: the table's columns in any order; may be empty when properties move.
            properties: `lakehouse.*` properties that the snapshot and all after it carry; None ends one.

        Raises:
            RowsMismatchError: the rows don't fit the table.
            InvalidProductError: a row's product is not one.
            ForeignCommitError: another program committed and dropped the properties.
        """
        checked = _checked(table, rows)
        with self.lock(table):
            return self._write(table, self.opened(table), checked, properties, partition=None)

    def replace(
        self,
        table: Table,
        product: str,
        day: date,
        rows: pa.Table,
        *,
        properties: Mapping[str, str | None] | None = None,
    ) -> int:
        """Make `rows` the whole content of a product's day, in one snapshot, and return its id.

        Raises:
            RowsMismatchError: the rows don't fit the table or the partition.
            ForeignCommitError: another program committed and dropped the properties.
        """
        checked = _checked(table, rows)
        checked_product(product)
        if (
            checked.num_rows
            and not pc.all(
                pc.and_(pc.equal(checked["product"], product), pc.equal(checked["day"], pa.scalar(day)))
            ).as_py()
        ):
            raise RowsMismatchError(f"rows of other partitions given for {product} on {day}")
        # Static: no rows empty the partition. Dynamic would leave it as it is then.
        opened = self.opened(table).copy({"dynamic-partition-overwrite": "false"})
        with self.lock(table):
            return self._write(table, opened, checked, properties, {"day": day, "product": product})

    def replace_days(self, table: Table, product: str, days: Collection[date], rows: pa.Table) -> int | None:
        """Make `rows` the whole content of a product's days, and return the newest snapshot's id.

        All days with rows are one snapshot. A day without any is emptied in one of its own before that.

        Raises:
            RowsMismatchError: the rows don't fit the table, or belong to another product or day.
            ForeignCommitError: another program committed and dropped the properties.
        """
        checked = _checked(table, rows)
        filled = set(pc.unique(checked["day"]).to_pylist())
        if pc.unique(checked["product"]).to_pylist() not in ([], [product]) or not filled <= set(days):
            raise RowsMismatchError(f"rows of other partitions given for {len(days)} days of {product}")
        with self.lock(table):
            for day in sorted(set(days) - filled):
                self.replace(table, product, day, checked.slice(0, 0))
            if filled:
                # Dynamic, which is the default: the partitions that rows are given for are replaced.
                self._write(table, self.opened(table), checked, None, partition={})
            return self.snapshot_id(table)

    def _write(
        self,
        table: Table,
        opened: FileStoreTable,
        rows: pa.Table,
        properties: Mapping[str, str | None] | None,
        partition: dict[str, Any] | None,
    ) -> int:
        if wrong := [key for key in properties or {} if not key.startswith(PREFIX) or key == COMMIT]:
            raise PaimonStoreError(f"properties must be named {PREFIX}<something of yours>, not {wrong}")
        before = self.newest(table)
        moved = {**self.carried(table, before), **(properties or {})}
        carried = {key: value for key, value in moved.items() if value is not None}
        number = int(carried.get(COMMIT, 0)) + 1
        carried[COMMIT] = str(number)
        # Taken out while it is used: after an error nobody knows what it holds.
        writer = self._writers.pop(table.name, None)
        if writer is not None and (partition is not None or writer.after != (before.id if before else None)):
            writer.native.close()
            writer = None
        builder = opened.new_batch_write_builder()
        # A user and identifier that never repeat: pypaimon takes a repeated pair for a retry.
        builder._with_commit_user(f"{_COMMIT_USER}-{number}")
        if partition is not None:
            builder.overwrite(partition)
            messages = write_rows(builder.new_write(), rows)
        elif rows.num_rows:
            writer = writer or UpsertWriter.open(opened, before.id if before else None)
            messages = writer.write(rows, number)
        else:
            messages = []
        builder.new_commit().commit(messages, snapshot_properties=carried)
        self._unmaintained[table.name] = self._unmaintained.get(table.name, FAN_IN) + 1
        after = self.snapshot_id(table)
        if after is None or after != (before.id if before else 0) + 1:
            raise PaimonStoreError(
                f"{table.name} went from snapshot {before and before.id} to {after} in one commit: another "
                "program writes to it without the lock"
            )
        if writer is not None:
            writer.after = after
            self._writers[table.name] = writer
        return after

    def tag(self, table: Table, name: str, snapshot_id: int | None = None) -> None:
        """Name a snapshot (the newest where None), so that its files stay.

        Raises:
            ValueError: there is no such snapshot, or a tag of that name.
        """
        with self.lock(table):
            snapshots = self.history(table).live
            found = snapshots.get(max(snapshots, default=0) if snapshot_id is None else snapshot_id)
            if found is None:
                raise ValueError(f"{table.name} has no snapshot {snapshot_id or ''} that could be tagged")
            set_tag(self.opened(table), name, found)

    def untag(self, table: Table, name: str) -> None:
        """Remove a tag; the files that only it named are deleted by a later expiry."""
        forget_tag(self, table, name)

    def tags(self, table: Table) -> dict[str, int]:
        """Return the tagged snapshots by name; those named `held-until-…` come and go with the ladder."""
        return self.history(table).tags

    def history(self, table: Table) -> History:
        """Return what can be read of the table's past, as it is at this moment."""
        history, self._read_tags[table.name] = read_history(
            self.opened(table), self._read_tags.get(table.name, {})
        )
        return history

    def versions(self, table: Table) -> list[Version]:
        """Return the versions that can be read, oldest first."""
        return self.history(table).versions

    # Maintenance

    def compact(self, table: Table, *, fan_in: int = FAN_IN) -> CompactionResult:
        """Merge each partition with at least `fan_in` files into one; see `paimon_maintenance`."""
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

        What somebody tagged stays, and what the ladder wants is tagged.

        Args:
            table: what to expire.
            keep: newest snapshots that stay.
            grace: how long a file must have been unnamed before it is deleted, for readers still at it.
            ladder: the moments whose state stays readable.
        """
        return expire(self, table, keep, grace, ladder)

    def sweep(self, table: Table, *, grace: timedelta = GRACE) -> Sweep:
        """Look through the table's folder for files that nothing names, and delete those that are due."""
        return sweep(self, table, grace)

    def maintain(self, table: Table) -> None:
        """Compact and expire what is due; costs nothing between, so call it after each commit."""
        if self._unmaintained.get(table.name, FAN_IN) >= FAN_IN:
            self.compact(table)
            self.expire(table)
            self._unmaintained[table.name] = 0


def _planned(builder: Any) -> Any:
    """Return what a read consists of.

    While Flink commits, the newest snapshot was seen named before it could be found.
    """
    for _ in range(_LOOKS):
        try:
            return builder.new_scan().plan().splits()
        except ValueError as error:
            if _NOT_FOUND.search(str(error)) is None:
                raise
            time.sleep(_PAUSE_SECONDS)
    return builder.new_scan().plan().splits()


def _checked(table: Table, rows: pa.Table) -> pa.Table:
    checked = checked_rows(table, rows)
    for product in pc.unique(checked["product"]).to_pylist():
        checked_product(product)
    return checked


def _condition(method: str, field: str, value: object) -> dict[str, Any]:
    return {"method": method, "field": field, "literals": [value]}


def _time(us: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=us)
