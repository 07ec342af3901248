"""Keeping the Paimon tables small while they are written: compaction and expiry.

Neither pypaimon nor its Rust library has them. Each upsert adds a file to each partition it touches, and a
manifest; a scan merges all files of a partition, and the writer reads all manifests. So compaction reads a
partition merged and writes it as one file, and writes all manifests together, in one snapshot of the kind
COMPACT. Expiry walks the manifests of the snapshots and tags that stay and deletes what none names.
"""

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
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

from lakehouse.stores.orphans import looked, sweep
from lakehouse.stores.paimon_files import entries_of, write_rows
from lakehouse.stores.schemas import Table

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


def expire(store: "PaimonStore", table: Table, keep: int, grace: timedelta) -> ExpiryResult:
    """Forget all but the newest `keep` snapshots; delete files that are due.

    Snapshots go first, oldest first, so that a crash leaves a contiguous history and unnamed files, which
    the next call finds, because it looks at everything in the table's folder (now and then, see
    `orphans.looked`).
    """
    if keep < 1:
        raise ValueError("the newest snapshot has to stay: keep at least 1")
    with store.lock(table):
        opened = store.opened(table)
        manager = opened.snapshot_manager()
        snapshots = manager.list_snapshots()
        if not snapshots:
            return ExpiryResult(0, 0, 0, 0)
        forgotten, kept = snapshots[:-keep], snapshots[-keep:]
        if forgotten:
            # Before the files go: a reader that starts from the hint must not look for them.
            partial = Path(manager.snapshot_dir) / ".EARLIEST"
            partial.write_text(str(kept[0].id))
            partial.replace(partial.with_name("EARLIEST"))
        for snapshot in forgotten:
            Path(manager.get_snapshot_path(snapshot.id)).unlink()
        root = Path(opened.table_path)
        record = root / "unnamed.json"
        found = looked(record, grace) or sweep(_swept(root), _named(opened, kept), record, grace)
    return ExpiryResult(len(forgotten), found.deleted, found.bytes, found.waiting)


def _named(opened: FileStoreTable, kept: list[Snapshot]) -> set[str]:
    """Return the paths of all files that the snapshots and the tags need."""
    tags = opened.tag_manager()
    names = tags.list_tags() if Path(tags.tag_directory()).exists() else []
    lists, reader = ManifestListManager(opened), ManifestFileManager(opened)
    read: dict[str, tuple[set[str], set[str]]] = {}
    named: set[str] = set()
    for snapshot in [*kept, *(tags.get_or_throw(name) for name in names)]:
        named |= {
            f"{lists.manifest_path}/{name}"
            for name in (snapshot.base_manifest_list, snapshot.delta_manifest_list)
        }
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
