"""Keeping the Paimon tables small while they are written: compaction, expiry, and a look for orphans.

Neither pypaimon nor its Rust library has them. Each upsert adds a file to each partition it touches, and a
manifest; a scan merges all files of a partition, and the writer reads all manifests. So compaction reads a
partition merged and writes it as one file, and writes all manifests together, in one snapshot of the kind
COMPACT. Expiry removes snapshots, keeps as tags those that keep the past readable (`versions`), and deletes
the files that only those named. Both cost what was written since the last time. Orphans are
looked for in the whole table, now and then.
"""

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pypaimon.build_info import full_version
from pypaimon.manifest.manifest_file_manager import ManifestFileManager
from pypaimon.manifest.manifest_list_manager import ManifestListManager
from pypaimon.manifest.schema.manifest_entry import ManifestEntry
from pypaimon.snapshot.renaming_snapshot_commit import RenamingSnapshotCommit
from pypaimon.snapshot.snapshot import Snapshot
from pypaimon.table.file_store_table import FileStoreTable
from pypaimon.table.row.generic_row import GenericRow
from pypaimon.utils.file_store_path_factory import canonical_data_file_path

from lakehouse.stores import orphans
from lakehouse.stores.orphans import Sweep, delete_due, settle
from lakehouse.stores.paimon_files import entries_of, write_rows
from lakehouse.stores.paimon_history import set_tag
from lakehouse.stores.schemas import Table
from lakehouse.stores.versions import Rung, files_alone, plan_expiry

if TYPE_CHECKING:
    from lakehouse.stores.paimon import PaimonStore

FAN_IN: Final = 16
KEEP_SNAPSHOTS: Final = 16
GRACE: Final = timedelta(minutes=10)

_ADD, _DELETE = 0, 1
_MANIFEST_BYTES = 8 * 2**20


@dataclass(frozen=True)
class CompactionResult:
    """What a compaction did: files merged away, files written, manifests before and after."""

    merged: int
    written: int
    manifests_before: int
    manifests_after: int


@dataclass(frozen=True)
class ExpiryResult:
    """What an expiry did; `waiting` files are unnamed but still within their grace period."""

    snapshots: int
    deleted_files: int
    deleted_bytes: int
    waiting: int


def compact(store: "PaimonStore", table: Table, fan_in: int) -> CompactionResult:
    """Merge what is due in one snapshot, under the lock: a commit in between would be lost."""
    with store.lock(table):
        opened = store.opened(table)
        snapshot = store.newest(table)
        if snapshot is None:
            return CompactionResult(0, 0, 0, 0)
        lists, files = ManifestListManager(opened), ManifestFileManager(opened)
        manifests = lists.read_all(snapshot)
        entries = entries_of(opened, snapshot)
        groups: dict[tuple[date, str], list[ManifestEntry]] = {}
        for entry in entries:
            day, product = entry.partition.values
            groups.setdefault((day, product), []).append(entry)
        due = {key: group for key, group in groups.items() if len(group) >= fan_in}
        if not due and len(manifests) < fan_in:
            return CompactionResult(0, 0, len(manifests), len(manifests))
        carried = store.carried(table, snapshot)
        changes = [replace(entry, kind=_DELETE) for group in due.values() for entry in group]
        written = []
        for day, product in due:
            rows = store.scan(table, product=product, day=day)
            for message in write_rows(opened.new_batch_write_builder().new_write(), rows):
                partition = GenericRow(list(message.partition), opened.partition_keys_fields)
                written += [
                    ManifestEntry(_ADD, partition, message.bucket, opened.total_buckets, file)
                    for file in message.new_files
                ]
        unique = uuid.uuid4()
        base = files.rolling_write(entries, _MANIFEST_BYTES, f"manifest-{uuid.uuid4()}")
        delta = files.rolling_write(changes + written, _MANIFEST_BYTES, f"manifest-{uuid.uuid4()}")
        base_list, delta_list = f"manifest-list-{unique}-0", f"manifest-list-{unique}-1"
        base_size, delta_size = lists.write(base_list, base), lists.write(delta_list, delta)
        gained = sum(e.file.row_count for e in written) - sum(e.file.row_count for e in changes)
        compacted = Snapshot(
            version=3,
            id=snapshot.id + 1,
            schema_id=opened.table_schema.id,
            base_manifest_list=base_list,
            base_manifest_list_size=base_size,
            delta_manifest_list=delta_list,
            delta_manifest_list_size=delta_size,
            total_record_count=snapshot.total_record_count + gained,
            delta_record_count=gained,
            commit_user="lakehouse-compaction",
            commit_identifier=snapshot.id + 1,
            commit_kind="COMPACT",
            time_millis=time.time_ns() // 1_000_000,
            watermark=snapshot.watermark,
            properties=carried,
            writer_version=full_version(),
        )
        if not RenamingSnapshotCommit(opened.snapshot_manager()).commit(snapshot.uuid, compacted, []):
            raise RuntimeError(f"snapshot {compacted.id} of {table.name} exists although the lock was held")
    return CompactionResult(len(changes), len(written), len(manifests), len(base) + len(delta))


def expire(
    store: "PaimonStore", table: Table, keep: int, grace: timedelta, ladder: Sequence[Rung]
) -> ExpiryResult:
    """Expire what `plan_expiry` says; delete the files of those that expired `grace` ago.

    Tags are set before snapshots go, and snapshots go oldest first, so that a crash leaves a contiguous
    history. Which files nothing names any more is written down after that: a crash in between leaves them to
    `sweep`.
    """
    if keep < 1:
        raise ValueError("the newest snapshot has to stay: keep at least 1")
    with store.lock(table):
        opened = store.opened(table)
        history = store.history(table)
        snapshots, live = history.snapshots, list(history.live)
        plan = plan_expiry(history.versions, history.tags, live[-keep:], time.time_ns() // 1_000_000, ladder)
        alone = files_alone(list(snapshots), plan.forget, partial(_alone, opened, snapshots))
        for name, snapshot_id in plan.tag.items():
            set_tag(opened, name, snapshots[snapshot_id])
        forgotten = live[:-keep]
        _forget(opened, forgotten, live[-keep:])
        for name in plan.untag:
            opened.delete_tag(name)
        record = _record(opened)
        settle(record, alone)
        found = delete_due(record, grace)
    return ExpiryResult(len(forgotten), found.deleted, found.bytes, found.waiting)


def _forget(opened: FileStoreTable, forgotten: list[int], kept: list[int]) -> None:
    manager = opened.snapshot_manager()
    if forgotten:
        # Before the files go: a reader that starts from the hint must not look for them.
        partial_hint = Path(manager.snapshot_dir) / ".EARLIEST"
        partial_hint.write_text(str(kept[0]))
        partial_hint.replace(partial_hint.with_name("EARLIEST"))
    for snapshot_id in forgotten:
        Path(manager.get_snapshot_path(snapshot_id)).unlink()


def forget_tag(store: "PaimonStore", table: Table, name: str) -> None:
    """Remove a tag, and write down which files nothing names any more."""
    with store.lock(table):
        opened = store.opened(table)
        history = store.history(table)
        snapshots, tags = history.snapshots, history.tags
        snapshot_id = tags.pop(name, None)
        opened.delete_tag(name)
        if snapshot_id is not None and snapshot_id not in {*history.live, *tags.values()}:
            alone = files_alone(list(snapshots), [snapshot_id], partial(_alone, opened, snapshots))
            settle(_record(opened), alone)


def sweep(store: "PaimonStore", table: Table, grace: timedelta) -> Sweep:
    """Look at every file of the table, and delete those that nothing names and that are due."""
    with store.lock(table):
        opened = store.opened(table)
        root = Path(opened.table_path)
        named = _named(opened, store.history(table).snapshots.values())
        return orphans.sweep(_swept(root), named, _record(opened), grace)


def _record(opened: FileStoreTable) -> Path:
    return Path(opened.table_path) / "unnamed.json"


def _alone(
    opened: FileStoreTable,
    history: Mapping[int, Snapshot],
    stretch: list[int],
    before: int | None,
    after: int | None,
) -> set[str]:
    """Return the paths that snapshots of a stretch name and neither neighbour does; see `files_alone`.

    A file's manifest may outlive it: what takes it out is in a manifest of the stretch, or of the one after.
    """
    lists, reader = ManifestListManager(opened), ManifestFileManager(opened)
    neighbours = [history[one] for one in (before, after) if one is not None]
    known = _manifests(lists, [history[before]] if before is not None else [])
    found: set[str] = set()
    for name in _manifests(lists, [history[one] for one in (*stretch, after) if one is not None]) - known:
        found.add(f"{lists.manifest_path}/{name}")
        found |= {path for entry in reader.read(name) for path in _paths(opened, entry)}
    found |= _lists_of(lists, [history[one] for one in stretch])
    named = {f"{lists.manifest_path}/{name}" for name in _manifests(lists, neighbours)}
    named |= _lists_of(lists, neighbours)
    named |= {path for one in neighbours for e in entries_of(opened, one) for path in _paths(opened, e)}
    return found - named


def _manifests(lists: ManifestListManager, snapshots: Iterable[Snapshot]) -> set[str]:
    return {manifest.file_name for snapshot in snapshots for manifest in lists.read_all(snapshot)}


def _lists_of(lists: ManifestListManager, snapshots: Iterable[Snapshot]) -> set[str]:
    return {
        f"{lists.manifest_path}/{name}"
        for snapshot in snapshots
        for name in (snapshot.base_manifest_list, snapshot.delta_manifest_list)
    }


def _named(opened: FileStoreTable, snapshots: Iterable[Snapshot]) -> set[str]:
    """Return the paths of all files that snapshots need."""
    lists, reader = ManifestListManager(opened), ManifestFileManager(opened)
    read: dict[str, tuple[set[str], set[str]]] = {}
    named: set[str] = set()
    for snapshot in snapshots:
        named |= _lists_of(lists, [snapshot])
        added: set[str] = set()
        deleted: set[str] = set()
        for manifest in lists.read_all(snapshot):
            name = manifest.file_name
            named.add(f"{lists.manifest_path}/{name}")
            if name not in read:  # manifests never change, and snapshots share most of them
                entries = reader.read(name)
                read[name] = (
                    {path for entry in entries if entry.kind == _ADD for path in _paths(opened, entry)},
                    {path for entry in entries if entry.kind == _DELETE for path in _paths(opened, entry)},
                )
            added |= read[name][0]
            deleted |= read[name][1]
        named |= added - deleted
    return named


def _paths(opened: FileStoreTable, entry: ManifestEntry) -> list[str]:
    """Return the paths of an entry's data file and of the files that go with it."""
    path = canonical_data_file_path(opened, tuple(entry.partition.values), entry.bucket, entry.file.file_name)
    return [path, *(f"{path.rpartition('/')[0]}/{extra}" for extra in entry.file.extra_files)]


def _swept(root: Path) -> Iterator[Path]:
    """Yield every file that a snapshot would have to name: data and manifests, and half-written hints."""
    for folder in root.iterdir():
        if folder.name == "manifest" or folder.name.startswith("day="):
            yield from (path for path in folder.rglob("*") if path.is_file())
        elif folder.name == "snapshot":
            yield from (path for path in folder.iterdir() if path.name.startswith("."))
