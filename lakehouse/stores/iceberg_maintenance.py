"""Keeping the Iceberg tables small while they are written: compaction, expiry, and a look for orphans.

Each commit adds a file to each partition it touches, a manifest, a snapshot and a metadata file. Compaction
writes a partition's files of one size class together once there are `fan_in` of them, so that a row is
rewritten a bounded number of times. Expiry removes snapshots, except those that keep the past readable
(`versions`), and deletes the files that only they named. Both are done after every few commits and cost what
those commits wrote, however large the table is. Orphans are looked for in the whole table, now and then.
pyiceberg has neither a compaction nor a deletion of files.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as PyIcebergTable
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot
from pyiceberg.table.update import (
    RemoveSnapshotRefUpdate,
    RemoveSnapshotsUpdate,
    SetSnapshotRefUpdate,
    TableUpdate,
)

from lakehouse.stores import orphans
from lakehouse.stores.iceberg_commit import Change, FilesReplacedError, apply, needed
from lakehouse.stores.iceberg_files import PartitionKey, split_by_partition, write_files
from lakehouse.stores.orphans import Sweep, delete_due, settle
from lakehouse.stores.schemas import Table
from lakehouse.stores.versions import (
    Recorded,
    Rung,
    Version,
    files_alone,
    held_until,
    plan_expiry,
    versions,
)

if TYPE_CHECKING:
    from lakehouse.stores.iceberg import IcebergStore

FAN_IN: Final = 16
KEEP_SNAPSHOTS: Final = 16
GRACE: Final = timedelta(minutes=10)
PENDING: Final = timedelta(days=3)
"""How long Flink may be down with checkpoints that it has not committed: their files are in its hands."""

TAG: Final = SnapshotRefType.TAG

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
    added: list[DataFile] = []
    for key, files in groups:
        rows = store.read(table, files)
        if "spine_offset" in table.schema.names and "trade_id" not in table.schema.names:
            rows = rows.sort_by([("spine_partition", "ascending"), ("spine_offset", "ascending")])
        parts: list[tuple[PartitionKey, pa.Table]] = list(split_by_partition(table, rows))
        if any(not _belongs(part_key, key) for part_key, _ in parts):
            raise AssertionError(f"files of {key.folder} hold rows of other partitions")
        added += write_files(table, current, parts)
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


def _belongs(part: PartitionKey, key: PartitionKey) -> bool:
    """Tell whether rows of a partition may be in a file of another, which an earlier partitioning made."""
    return key.day in (None, part.day) and key.product in (None, part.product)


def expire(
    store: "IcebergStore", table: Table, keep: int, grace: timedelta, ladder: Sequence[Rung]
) -> ExpiryResult:
    """Expire what `plan_expiry` says; delete the files of those that expired `grace` ago.

    Expiring is one commit. Which files nothing names any more is written down after it: a crash in between
    leaves them to `sweep`.
    """
    if keep < 1:
        raise ValueError("the current snapshot has to stay: keep at least 1")
    alone: set[str] = set()
    forgotten = 0

    def forget(current: PyIcebergTable) -> PyIcebergTable:
        nonlocal alone, forgotten
        history = [version.snapshot_id for version in readable(current)]
        stay = needed(current) | {*history[-keep:]}
        stay |= {ref.snapshot_id for ref in current.metadata.refs.values() if ref.snapshot_ref_type != TAG}
        plan = plan_expiry(readable(current), tags_of(current), stay, time.time_ns() // 1_000_000, ladder)
        alone = files_alone(history, plan.forget, partial(store.files_alone, current))
        forgotten = len(plan.forget)
        updates: list[TableUpdate] = [
            SetSnapshotRefUpdate(ref_name=name, type=TAG, snapshot_id=snapshot_id)  # type: ignore[call-arg]
            for name, snapshot_id in plan.tag.items()
        ]
        updates += [RemoveSnapshotRefUpdate(ref_name=name) for name in plan.untag]  # type: ignore[call-arg]
        if plan.forget:
            updates.append(RemoveSnapshotsUpdate(snapshot_ids=list(plan.forget)))  # type: ignore[call-arg]
        if not updates:
            return current
        return apply(current, updates, parent_id=current.metadata.current_snapshot_id)

    with store.lock(table):
        store.update(table, forget)
        record = _record(store, table)
        settle(record, alone)
        found = delete_due(record, grace)
    return ExpiryResult(forgotten, found.deleted, found.bytes, found.waiting)


def sweep(store: "IcebergStore", table: Table, grace: timedelta, pending: timedelta) -> Sweep:
    """Look at every file of the table, and delete those that nothing names and that are due."""
    with store.lock(table):
        location = Path(store.current(table).metadata.location)
        return orphans.sweep(
            (path for path in location.rglob("*") if path.is_file()),
            store.named_files(table),
            _record(store, table),
            grace,
            not_yet_named=lambda path: pending if _may_be_committed(path, location) else grace,
        )


def readable(current: PyIcebergTable) -> list[Version]:
    """Return the versions of a table that can be read, oldest first."""
    history = sorted(current.metadata.snapshots, key=lambda snapshot: snapshot.sequence_number or 0)
    recorded = [Recorded(one.snapshot_id, one.timestamp_ms, _follows(one)) for one in history]
    ends = {snapshot_id: held_until(name) for name, snapshot_id in tags_of(current).items()}
    return versions(recorded, {key: until for key, until in ends.items() if until is not None})


def _follows(snapshot: Snapshot) -> int | None:
    """Return the snapshot that another was made on, 0 for one that has expired; None for a table's first."""
    # As a snapshot expires, pyiceberg lets the one after it forget its parent. The numbers stay.
    if snapshot.parent_snapshot_id is None and (snapshot.sequence_number or 0) > 1:
        return 0
    return snapshot.parent_snapshot_id


def tags_of(current: PyIcebergTable) -> dict[str, int]:
    """Return the tagged snapshots by name."""
    refs = current.metadata.refs
    return {name: ref.snapshot_id for name, ref in refs.items() if ref.snapshot_ref_type == TAG}


def _record(store: "IcebergStore", table: Table) -> Path:
    return Path(store.current(table).metadata.location) / "unnamed.json"


def _may_be_committed(path: Path, location: Path) -> bool:
    """Tell whether a file may be part of a checkpoint of Flink's that is not committed yet.

    Those are data files, and manifests that list them; metadata and lists of manifests are written to be
    committed at once.
    """
    return path.is_relative_to(location / "data") or (
        path.suffix == ".avro" and not path.name.startswith("snap-")
    )
