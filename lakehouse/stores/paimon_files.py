"""Data files of the Paimon tables: written by the Rust library, listed through the manifests."""

from typing import Any

import pyarrow as pa
from pypaimon.manifest.manifest_file_manager import ManifestFileManager
from pypaimon.manifest.manifest_list_manager import ManifestListManager
from pypaimon.manifest.schema.manifest_entry import ManifestEntry
from pypaimon.snapshot.snapshot import Snapshot
from pypaimon.table.file_store_table import FileStoreTable
from pypaimon.write.native_write import NativeTableWrite


class PaimonStoreError(Exception):
    """A table can't be used as asked; the text says why and what to do."""


class NativePathMissingError(PaimonStoreError):
    """pypaimon did not take its Rust path."""


def write_rows(writer: Any, rows: pa.Table) -> list[Any]:
    """Write rows through a writer of pypaimon, close it, and return its commit messages.

    Raises:
        NativePathMissingError: it is not the Rust writer.
    """
    if not isinstance(writer, NativeTableWrite):
        writer.close()
        raise NativePathMissingError(
            "pypaimon fell back to its Python writer: install pypaimon-rust as in requirements.lock"
        )
    try:
        if rows.num_rows:
            writer.write_arrow(rows.combine_chunks())
        return list(writer.prepare_commit())
    finally:
        writer.close()


def entries_of(opened: FileStoreTable, snapshot: Snapshot | None) -> list[ManifestEntry]:
    """Return the entries of the data files of a snapshot."""
    if snapshot is None:
        return []
    manifests = ManifestListManager(opened).read_all(snapshot)
    if not manifests:
        return []
    return list(ManifestFileManager(opened).read_entries_parallel(manifests, drop_stats=False, max_workers=2))
