"""One commit to an Iceberg table: files in, files out, properties, all in one atomic step.

The pieces are pyiceberg's (manifest writers, snapshots, `Catalog.commit_table`); only the order is ours.
`Table.append` and `Transaction` copy the whole table metadata about twenty times a commit, which is most
of their time; an overwrite there makes two snapshots; and neither can replace files by others that hold
the same rows. Any catalog that pyiceberg knows can stand behind this.

What the lakehouse remembers with a commit:

- `lakehouse.offset.<partition>` in the snapshot's summary: the next offset of the spine to read;
- `lakehouse.commit` there: the number of the commit, which shows that it is one of ours;
- everything else (`lakehouse.counter.<name>`, what a seal records) in the table's properties, which are
  part of the same metadata file. They grow with the days, and a summary is repeated in each snapshot.

Another program may commit beside us: Flink does every few seconds. Our lock doesn't hold it, so a commit
is made on a snapshot and refused by the catalog when that is not the newest any more; then it is made again
(`until_committed`). Our offsets are those of the newest snapshot of ours below the other program's. What
Flink says of itself in its summaries (`flink.…`) is carried on in ours: after a restart it looks there for
the last checkpoint that it committed, and would commit again what it doesn't find.
"""

import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import (
    DataFile,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    write_manifest,
    write_manifest_list,
)
from pyiceberg.table import Table as PyIcebergTable
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    AssertTableUUID,
    SetPropertiesUpdate,
    SetSnapshotRefUpdate,
    TableUpdate,
)

PREFIX: Final = "lakehouse."
OFFSET: Final = "lakehouse.offset."
COUNTER: Final = "lakehouse.counter."
COMMIT: Final = "lakehouse.commit"
FOLLOWS: Final = "lakehouse.follows-log"
"""Property of a table that has offsets: without them its writer doesn't know where it is."""

_FLINK: Final = "flink."

ATTEMPTS: Final = 60
"""Commits of others that may come between before a commit gives up."""

_LONGEST_PAUSE_SECONDS: Final = 1.0

_Result = TypeVar("_Result")

_MERGE_AT = 32
"""Small manifests that a commit finds before it writes them together into one."""

_SMALL_MANIFEST = 512
"""Files in a manifest below which it is small."""


class IcebergStoreError(Exception):
    """A table can't be used as asked; the text says why and what to do."""


class ForeignCommitError(IcebergStoreError):
    """Another program dropped the snapshots that said which offsets of the log the table holds."""


class CommitConflictError(IcebergStoreError):
    """Others committed to the table each time that we tried to; nothing was changed."""


class FilesReplacedError(IcebergStoreError):
    """A file that was to be replaced is not part of the table any more: another writer replaced it."""


@dataclass(frozen=True)
class Change:
    """What one commit does: files added and removed (by path), and properties set."""

    operation: Operation
    added: Sequence[DataFile] = ()
    removed: frozenset[str] = frozenset()
    offsets: Mapping[int, int] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)


def carried(current: PyIcebergTable) -> dict[str, str]:
    """Return the `lakehouse.*` properties in the summary of the newest snapshot of ours.

    Raises:
        ForeignCommitError: it has been dropped, and with it the offsets.
    """
    for snapshot in lineage(current):
        found = _summary(snapshot, PREFIX)
        if COMMIT in found:
            return found
    if FOLLOWS in current.metadata.properties:
        newest = current.current_snapshot()
        raise ForeignCommitError(
            f"the snapshots of {'.'.join(current.name())} that hold the offsets of the log are gone (the "
            f"newest is {newest and newest.snapshot_id}): another program has expired them. Restore the "
            "table's metadata from before, or use an empty LAKEHOUSE_HOME"
        )
    return {}


def lineage(current: PyIcebergTable) -> Iterator[Snapshot]:
    """Yield the current snapshot, the one that it was made on, and so on as far as they have not expired."""
    by_id = {snapshot.snapshot_id: snapshot for snapshot in current.metadata.snapshots}
    at = current.metadata.current_snapshot_id
    while at is not None and (snapshot := by_id.get(at)) is not None:
        yield snapshot
        at = snapshot.parent_snapshot_id


def needed(current: PyIcebergTable) -> set[int]:
    """Return the snapshots that `carried` reads: those down to the newest of ours, where it matters."""
    if FOLLOWS not in current.metadata.properties:
        return set()
    stay = set()
    for snapshot in lineage(current):
        stay.add(snapshot.snapshot_id)
        if COMMIT in _summary(snapshot, PREFIX):
            break
    return stay


def counted(current: PyIcebergTable) -> dict[str, int]:
    """Return the cumulative counters by name."""
    return {
        key.removeprefix(COUNTER): int(value)
        for key, value in current.metadata.properties.items()
        if key.startswith(COUNTER)
    }


def added_up(current: PyIcebergTable, counters: Mapping[str, int]) -> dict[str, str]:
    """Return the properties that hold the cumulative counters after these are added."""
    before = counted(current)
    return {f"{COUNTER}{name}": str(before.get(name, 0) + value) for name, value in counters.items()}


def _summary(snapshot: Snapshot | None, prefix: str) -> dict[str, str]:
    if snapshot is None or snapshot.summary is None:
        return {}
    properties = snapshot.summary.additional_properties
    return {key: value for key, value in properties.items() if key.startswith(prefix)}


def until_committed(attempt: Callable[[], _Result]) -> _Result:
    """Run `attempt`, which reads the table and commits on that, until nobody has come between.

    Raises:
        CommitConflictError: somebody came between every time.
    """
    for number in range(ATTEMPTS):
        try:
            return attempt()
        except CommitFailedException:
            # Not in step with the other one, which may be trying again too.
            time.sleep(random.uniform(0.0, min(0.01 * 2**number, _LONGEST_PAUSE_SECONDS)))
    raise CommitConflictError(
        f"others committed {ATTEMPTS} times while this tried to: nothing was changed. Is another program "
        "writing without a pause?"
    )


class Manifests:
    """The manifests of a table's snapshots, read once: neither they nor their entries ever change."""

    def __init__(self) -> None:
        self._lists: dict[str, list[ManifestFile]] = {}
        self._entries: dict[str, list[ManifestEntry]] = {}

    def of(self, current: PyIcebergTable, snapshot: Snapshot | None) -> list[ManifestFile]:
        """Return a snapshot's manifests.

        Raises:
            IcebergStoreError: the snapshot has delete files, which nothing of ours writes or applies.
        """
        if snapshot is None:
            return []
        manifests = self._lists.get(snapshot.manifest_list)
        if manifests is None:
            manifests = list(snapshot.manifests(current.io))
            if any(manifest.content != ManifestContent.DATA for manifest in manifests):
                raise IcebergStoreError(
                    f"{'.'.join(current.name())} has delete files, written by another program: rewrite the "
                    "data files there, then read again"
                )
            self.remember(snapshot, manifests)
        return manifests

    def remember(self, snapshot: Snapshot, manifests: list[ManifestFile]) -> None:
        """Keep the manifests of a snapshot."""
        if len(self._lists) > 64:
            self._lists.clear()
        self._lists[snapshot.manifest_list] = manifests

    def entries(self, current: PyIcebergTable, manifest: ManifestFile) -> list[ManifestEntry]:
        """Return the live entries of a manifest."""
        entries = self._entries.get(manifest.manifest_path)
        if entries is None:
            if len(self._entries) > 4096:
                self._entries.clear()
            entries = manifest.fetch_manifest_entry(current.io, discard_deleted=True)
            self._entries[manifest.manifest_path] = entries
        return entries

    def files(self, current: PyIcebergTable, snapshot: Snapshot | None) -> list[DataFile]:
        """Return the data files of a snapshot."""
        return [
            entry.data_file
            for manifest in self.of(current, snapshot)
            for entry in self.entries(current, manifest)
        ]

    def named(self, current: PyIcebergTable) -> set[str]:
        """Return the paths of all files that a snapshot or the metadata log needs."""
        named = {current.metadata_location, *(entry.metadata_file for entry in current.metadata.metadata_log)}
        for snapshot in current.metadata.snapshots:
            named.add(snapshot.manifest_list)
            for manifest in self.of(current, snapshot):
                if manifest.manifest_path not in named:  # snapshots share most of them
                    named.add(manifest.manifest_path)
                    entries = manifest.fetch_manifest_entry(current.io, discard_deleted=True)
                    named |= {entry.data_file.file_path for entry in entries}
        return named

    def alone(
        self, current: PyIcebergTable, stretch: Sequence[int], before: int | None, after: int | None
    ) -> set[str]:
        """Return the paths that snapshots of a stretch name and neither neighbour does; see `files_alone`."""
        snapshots = [current.metadata.snapshot_by_id(snapshot_id) for snapshot_id in stretch]
        neighbours = [
            current.metadata.snapshot_by_id(snapshot_id)
            for snapshot_id in (before, after)
            if snapshot_id is not None
        ]
        shared = {manifest.manifest_path for one in neighbours for manifest in self.of(current, one)}
        found: set[str] = set()
        for snapshot in snapshots:
            assert snapshot is not None  # the stretch is of this metadata
            found.add(snapshot.manifest_list)
            for manifest in self.of(current, snapshot):
                if manifest.manifest_path not in shared and manifest.manifest_path not in found:
                    found.add(manifest.manifest_path)
                    found |= {e.data_file.file_path for e in self.entries(current, manifest)}
        return found - {file.file_path for one in neighbours for file in self.files(current, one)}


def commit(current: PyIcebergTable, manifests: Manifests, change: Change) -> PyIcebergTable:
    """Commit a change on top of `current` and return the table as it is then.

    The caller holds the table's lock.

    Raises:
        ForeignCommitError: another program dropped the offsets.
        FilesReplacedError: a file to remove is not there.
        CommitFailedException: `current` is not the newest any more; nothing was changed.
    """
    metadata = current.metadata
    parent = current.current_snapshot()
    snapshot_id = metadata.new_snapshot_id()
    summary = carried(current) | _summary(parent, _FLINK)
    summary[COMMIT] = str(int(summary.get(COMMIT, 0)) + 1)
    summary |= {f"{OFFSET}{partition}": str(offset) for partition, offset in change.offsets.items()}
    kept, removed_files = _write_manifests(current, manifests, change, parent, snapshot_id)
    sequence_number = metadata.next_sequence_number()
    list_path = f"{metadata.location}/metadata/snap-{snapshot_id}-0-{uuid.uuid4()}.avro"
    with write_manifest_list(
        format_version=metadata.format_version,
        output_file=current.io.new_output(list_path),
        snapshot_id=snapshot_id,
        parent_snapshot_id=parent.snapshot_id if parent else None,
        sequence_number=sequence_number,
        avro_compression="deflate",
    ) as writer:
        numbered = [writer.prepare_manifest(manifest) for manifest in kept]
        writer.add_manifests(numbered)
    snapshot = Snapshot(  # type: ignore[call-arg]  # pyiceberg's models accept their fields' names
        snapshot_id=snapshot_id,
        parent_snapshot_id=parent.snapshot_id if parent else None,
        manifest_list=list_path,
        sequence_number=sequence_number,
        # pyiceberg refuses a snapshot older than the last one, and clocks do step back.
        timestamp_ms=max(time.time_ns() // 1_000_000, metadata.last_updated_ms),
        summary=Summary(change.operation, **_totals(parent, change.added, removed_files), **summary),
        schema_id=metadata.current_schema_id,
    )
    updates: list[TableUpdate] = [
        AddSnapshotUpdate(snapshot=snapshot),
        SetSnapshotRefUpdate(  # type: ignore[call-arg]
            ref_name=MAIN_BRANCH, type=SnapshotRefType.BRANCH, snapshot_id=snapshot_id
        ),
    ]
    properties = dict(change.properties)
    if change.offsets and FOLLOWS not in metadata.properties:
        properties[FOLLOWS] = "true"
    if properties:
        updates.append(SetPropertiesUpdate(updates=properties))
    try:
        table = apply(current, updates, parent_id=parent.snapshot_id if parent else None)
    except CommitFailedException:
        known = {manifest.manifest_path for manifest in manifests.of(current, parent)}
        for path in (list_path, *(m.manifest_path for m in kept if m.manifest_path not in known)):
            Path(path).unlink()
        raise
    manifests.remember(snapshot, numbered)
    return table


def apply(
    current: PyIcebergTable, updates: Iterable[TableUpdate], *, parent_id: int | None
) -> PyIcebergTable:
    """Commit metadata updates if the main branch still ends at `parent_id`; return the table after."""
    response = current.catalog.commit_table(
        current,
        (
            AssertTableUUID(uuid=current.metadata.table_uuid),
            AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=parent_id),  # type: ignore[call-arg]
        ),
        tuple(updates),
    )
    outlived = {entry.metadata_file for entry in current.metadata.metadata_log}
    for path in outlived - {entry.metadata_file for entry in response.metadata.metadata_log}:
        Path(path.removeprefix("file:")).unlink(missing_ok=True)  # as `delete-after-commit` says
    return PyIcebergTable(
        current.name(), response.metadata, response.metadata_location, current.io, current.catalog
    )


def _write_manifests(
    current: PyIcebergTable,
    manifests: Manifests,
    change: Change,
    parent: Snapshot | None,
    snapshot_id: int,
) -> tuple[list[ManifestFile], list[DataFile]]:
    """Write what the change needs and return the new snapshot's manifests and the removed files."""
    kept: list[ManifestFile] = []
    live: list[ManifestEntry] = []
    gone: list[ManifestEntry] = []
    small: list[ManifestFile] = []
    for manifest in manifests.of(current, parent):
        entries = manifests.entries(current, manifest) if change.removed else []
        hit = [entry for entry in entries if entry.data_file.file_path in change.removed]
        if hit:
            gone += hit
            live += [entry for entry in entries if entry.data_file.file_path not in change.removed]
        elif _live_files(manifest) >= _SMALL_MANIFEST:
            kept.append(manifest)
        elif _live_files(manifest):
            small.append(manifest)
    if len(gone) != len(change.removed):
        raise FilesReplacedError(
            f"{len(change.removed) - len(gone)} files of {'.'.join(current.name())} were replaced meanwhile"
        )
    if len(small) >= _MERGE_AT:
        live += [entry for manifest in small for entry in manifests.entries(current, manifest)]
    else:
        kept += small
    added = [
        ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, snapshot_id=snapshot_id, data_file=file)
        for file in change.added
    ]
    existing = [_with_status(entry, ManifestEntryStatus.EXISTING, entry.snapshot_id) for entry in live]
    deleted = [_with_status(entry, ManifestEntryStatus.DELETED, snapshot_id) for entry in gone]
    # A manifest holds files of one partitioning.
    for spec_id, entries in _by_spec(added + existing) + _by_spec(deleted):
        with write_manifest(
            format_version=current.metadata.format_version,
            spec=current.specs()[spec_id],
            schema=current.schema(),
            output_file=current.io.new_output(f"{current.metadata.location}/metadata/{uuid.uuid4()}-m0.avro"),
            snapshot_id=snapshot_id,
            avro_compression="deflate",
        ) as writer:
            for entry in entries:
                writer.add_entry(entry)
        kept.append(writer.to_manifest_file())
    return kept, [entry.data_file for entry in gone]


def _by_spec(entries: Iterable[ManifestEntry]) -> list[tuple[int, list[ManifestEntry]]]:
    found: dict[int, list[ManifestEntry]] = {}
    for entry in entries:
        found.setdefault(entry.data_file.spec_id, []).append(entry)
    return sorted(found.items())


def _live_files(manifest: ManifestFile) -> int:
    return (manifest.added_files_count or 0) + (manifest.existing_files_count or 0)


def _with_status(entry: ManifestEntry, status: ManifestEntryStatus, snapshot_id: int | None) -> ManifestEntry:
    return ManifestEntry.from_args(
        status=status,
        snapshot_id=snapshot_id,
        sequence_number=entry.sequence_number,
        file_sequence_number=entry.file_sequence_number,
        data_file=entry.data_file,
    )


def _totals(
    parent: Snapshot | None, added: Sequence[DataFile], removed: Sequence[DataFile]
) -> dict[str, str]:
    """Return the counts that Iceberg wants in a summary; pyiceberg's own don't know `replace`."""
    before = parent.summary.additional_properties if parent and parent.summary else {}
    totals: dict[str, str] = {}
    for total, gain, loss, measure in (
        ("total-data-files", "added-data-files", "deleted-data-files", lambda file: 1),
        ("total-records", "added-records", "deleted-records", lambda file: file.record_count),
        ("total-files-size", "added-files-size", "removed-files-size", lambda file: file.file_size_in_bytes),
    ):
        plus, minus = sum(map(measure, added)), sum(map(measure, removed))
        totals[total] = str(int(before.get(total, 0)) + plus - minus)
        totals |= {name: str(value) for name, value in ((gain, plus), (loss, minus)) if value}
    return totals
