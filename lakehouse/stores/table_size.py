"""How large a table is: what its newest snapshot names, and all that lies on the disk for it."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lakehouse.stores.iceberg import IcebergStore, SnapshotGoneError
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.paimon_files import paths_of
from lakehouse.stores.schemas import Table


@dataclass(frozen=True)
class TableSize:
    """A table's size at a moment; `disk_…` counts the past, metadata and what waits to be deleted, too."""

    files: int
    bytes: int
    disk_files: int
    disk_bytes: int
    snapshots: int
    tags: int


def iceberg_size(store: IcebergStore, table: Table) -> TableSize:
    """Return the size of an Iceberg table."""
    current = store.current(table)
    sizes = [file.file_size_in_bytes for file in store.data_files(table)]
    disk = _sizes(Path(current.metadata.location).rglob("*"))
    return TableSize(
        len(sizes), sum(sizes), len(disk), sum(disk), len(current.metadata.snapshots), len(store.tags(table))
    )


def paimon_size(store: PaimonStore, table: Table) -> TableSize:
    """Return the size of a Paimon table."""
    partitions = store.partitions(table)
    disk = _sizes(Path(store.opened(table).table_path).rglob("*"))
    history = store.history(table)
    return TableSize(
        sum(stats.files for stats in partitions),
        sum(stats.bytes for stats in partitions),
        len(disk),
        sum(disk),
        len(history.live),
        len(history.tags),
    )


def iceberg_missing(store: IcebergStore, table: Table) -> list[str]:
    """Return the data files that the newest snapshot or a tag names and that are not there."""
    pinned = {store.snapshot_id(table), *store.tags(table).values()} - {None}
    files: set[str] = set()
    for snapshot_id in pinned:
        with suppress(SnapshotGoneError):  # a writer removed its tag meanwhile
            files |= {file.file_path for file in store.data_files(table, snapshot_id=snapshot_id)}
    return _missing(files)


def paimon_missing(store: PaimonStore, table: Table) -> list[str]:
    """Return the data files that the newest snapshot or a tag names and that are not there."""
    history = store.history(table)
    pinned = {
        snapshot.id: snapshot for snapshot in [*list(history.live.values())[-1:], *history.tagged.values()]
    }
    return _missing({path for one in pinned.values() for path in paths_of(store.opened(table), one)})


def _missing(paths: Iterable[str]) -> list[str]:
    return sorted(path for path in paths if not Path(path.removeprefix("file:")).exists())


def _sizes(paths: Iterable[Path]) -> list[int]:
    sizes = []
    for path in paths:
        try:
            if path.is_file():
                sizes.append(path.stat().st_size)
        except FileNotFoundError:
            continue  # a writer goes on meanwhile
    return sizes
