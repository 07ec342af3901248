"""Data files of the Paimon tables: written by the Rust library, listed through the manifests."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pypaimon.manifest.manifest_file_manager import ManifestFileManager
from pypaimon.manifest.manifest_list_manager import ManifestListManager
from pypaimon.manifest.schema.manifest_entry import ManifestEntry
from pypaimon.snapshot.snapshot import Snapshot
from pypaimon.table.file_store_table import FileStoreTable
from pypaimon.utils.file_store_path_factory import canonical_data_file_path
from pypaimon.write.native_write import NativeTableWrite


class PaimonStoreError(Exception):
    """A table can't be used as asked; the text says why and what to do."""


class NativePathMissingError(PaimonStoreError):
    """pypaimon did not take its Rust path."""


def checked_writer(writer: Any) -> NativeTableWrite:
    """Return a writer that pypaimon gave if it is the Rust one.

    Raises:
        NativePathMissingError: it is not.
    """
    if not isinstance(writer, NativeTableWrite):
        writer.close()
        raise NativePathMissingError(
            "pypaimon fell back to its Python writer: install pypaimon-rust as in requirements.lock"
        )
    return writer


def write_rows(writer: Any, rows: pa.Table) -> list[Any]:
    """Write rows through a batch writer of pypaimon, close it, and return its commit messages.

    Raises:
        NativePathMissingError: it is not the Rust writer.
    """
    native = checked_writer(writer)
    try:
        if rows.num_rows:
            native.write_arrow(rows.combine_chunks())
        return list(native.prepare_commit())
    finally:
        native.close()


@dataclass
class UpsertWriter:
    """A stream writer that stays open from one upsert to the next, while nobody else commits.

    It remembers the highest sequence number of each partition. A new writer has to look for it in every
    manifest once for each partition, which is most of what a small upsert costs. After a commit by
    another writer the remembered numbers may be too low, so `after` says which snapshot they belong to.
    """

    native: NativeTableWrite
    after: int | None

    @classmethod
    def open(cls, opened: FileStoreTable, after: int | None) -> "UpsertWriter":
        """Open a writer on top of the snapshot `after`."""
        return cls(checked_writer(opened.new_stream_write_builder().new_write()), after)

    def write(self, rows: pa.Table, identifier: int) -> list[Any]:
        """Write the files of one commit and return its messages."""
        self.native.write_arrow(rows.combine_chunks())
        return list(self.native.prepare_commit(identifier))


def entries_of(opened: FileStoreTable, snapshot: Snapshot | None) -> list[ManifestEntry]:
    """Return the entries of the data files of a snapshot."""
    if snapshot is None:
        return []
    manifests = ManifestListManager(opened).read_all(snapshot)
    if not manifests:
        return []
    return list(ManifestFileManager(opened).read_entries_parallel(manifests, drop_stats=False, max_workers=2))


def paths_of(opened: FileStoreTable, snapshot: Snapshot | None) -> list[str]:
    """Return the paths of the data files of a snapshot."""
    return [
        canonical_data_file_path(opened, tuple(entry.partition.values), entry.bucket, entry.file.file_name)
        for entry in entries_of(opened, snapshot)
    ]
