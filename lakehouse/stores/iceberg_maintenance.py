"""Keeping the Iceberg tables small while they are written: compaction and expiry.

Each commit adds a file to each partition it touches, a manifest, a snapshot and a metadata file. Compaction
writes a partition's files of one size class together once there are `fan_in` of them, so that a row is
rewritten a bounded number of times. Expiry forgets snapshots and deletes files. pyiceberg has neither a
compaction nor a deletion of files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as PyIcebergTable
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update import RemoveSnapshotsUpdate

from lakehouse.stores.iceberg_commit import Change, FilesReplacedError, apply, needed
from lakehouse.stores.iceberg_files import PartitionKey, read_files, split_by_partition, write_files
from lakehouse.stores.orphans import looked, settle, sweep
from lakehouse.stores.schemas import Table

if TYPE_CHECKING:
    from lakehouse.stores.iceberg import IcebergStore

FAN_IN: Final = 16
KEEP_SNAPSHOTS: Final = 16
GRACE: Final = timedelta(minutes=10)
PENDING: Final = timedelta(days=3)
"""How long Flink may be down with checkpoints that it has not committed: their files are in its hands."""

_SIZE_CLASSES = (512 * 2**10, 4 * 2**20)
"""A file below the first is small, below the second middling; larger ones are left to the seal."""


@dataclass(frozen=True)
class CompactionResult:
    """What a compaction did: files merged away, files written; both 0 where nothing was due."""

    merged: int
    written: int


@dataclass(frozen=True)
class ExpiryResult:
    """What an expiry did; `waiting` files are unnamed but still within their grace period."""

    snapshots: int
    deleted_files: int
    deleted_bytes: int
    waiting: int


def compact(store: "IcebergStore", table: Table, fan_in: int) -> CompactionResult:
    """Merge what is due in one snapshot.

    The reading and writing happens outside the lock: files never change. When a writer replaced one of
    them meanwhile nothing is committed and a later call merges what is there then.
    """
    current = store.current(table)
    groups = list(_due(store.data_files(table), fan_in))
    if not groups:
        return CompactionResult(0, 0)
    location = Path(current.metadata.location)
    added: list[DataFile] = []
    for key, files in groups:
        rows = read_files(table, [file.file_path for file in files], None, None)
        if "spine_offset" in table.schema.names and "trade_id" not in table.schema.names:
            rows = rows.sort_by([("spine_partition", "ascending"), ("spine_offset", "ascending")])
        parts: list[tuple[PartitionKey, pa.Table]] = list(split_by_partition(table, rows))
        if [part_key for part_key, _ in parts] != [key]:
            raise AssertionError(f"files of {key.folder} hold rows of other partitions")
        added += write_files(table, location, parts)
    removed = frozenset(file.file_path for _, files in groups for file in files)
    try:
        with store.lock(table):
            store.commit(table, Change(Operation.REPLACE, added, removed))
    except FilesReplacedError:
        for file in added:
            Path(file.file_path).unlink()
        return CompactionResult(0, 0)
    return CompactionResult(len(removed), len(added))


def _due(files: list[DataFile], fan_in: int) -> Iterator[tuple[PartitionKey, list[DataFile]]]:
    """Yield the groups of files to merge: those of a partition and size class with `fan_in` members."""
    groups: dict[tuple[PartitionKey, int], list[DataFile]] = {}
    for file in files:
        size_class = sum(file.file_size_in_bytes >= limit for limit in _SIZE_CLASSES)
        if size_class < len(_SIZE_CLASSES):
            groups.setdefault((PartitionKey.of(file), size_class), []).append(file)
    for (key, _), members in groups.items():
        if len(members) >= fan_in:
            yield key, members


def expire(
    store: "IcebergStore", table: Table, keep: int, grace: timedelta, pending: timedelta
) -> ExpiryResult:
    """Forget all but the newest `keep` snapshots and what else must stay; delete the files that are due.

    Forgetting is one commit, deleting comes after it: a crash in between leaves files that the next call
    finds, because it looks at everything in the table's folder (now and then, see `orphans.looked`).
    """
    if keep < 1:
        raise ValueError("the current snapshot has to stay: keep at least 1")
    with store.lock(table):
        location = Path(store.current(table).metadata.location)
        record = location / "unnamed.json"
        forgotten = _to_forget(store.current(table), keep)
        if forgotten:
            # Before they are forgotten: afterwards nothing would tell these files from ones to be committed.
            settle(record, store.named_files(table) - store.named_files(table, without=forgotten))
            store.update(table, lambda current: _forget(current, keep))
        found = looked(record, grace) or sweep(
            (path for path in location.rglob("*") if path.is_file()),
            store.named_files(table),
            record,
            grace,
            not_yet_named=lambda path: pending if _may_be_committed(path, location) else grace,
        )
    return ExpiryResult(len(forgotten), found.deleted, found.bytes, found.waiting)


def _to_forget(current: PyIcebergTable, keep: int) -> list[int]:
    """Return the snapshots that nothing needs."""
    metadata = current.metadata
    newest = sorted(metadata.snapshots, key=lambda snapshot: snapshot.sequence_number or 0)[-keep:]
    stay = {snapshot.snapshot_id for snapshot in newest} | needed(current)
    stay |= {ref.snapshot_id for ref in metadata.refs.values()}
    return [s.snapshot_id for s in metadata.snapshots if s.snapshot_id not in stay]


def _forget(current: PyIcebergTable, keep: int) -> PyIcebergTable:
    update = RemoveSnapshotsUpdate(snapshot_ids=_to_forget(current, keep))  # type: ignore[call-arg]
    return apply(current, [update], parent_id=current.metadata.current_snapshot_id)


def _may_be_committed(path: Path, location: Path) -> bool:
    """Tell whether a file may be part of a checkpoint of Flink's that is not committed yet.

    Those are data files, and manifests that list them; metadata and lists of manifests are written to be
    committed at once.
    """
    return path.is_relative_to(location / "data") or (
        path.suffix == ".avro" and not path.name.startswith("snap-")
    )
