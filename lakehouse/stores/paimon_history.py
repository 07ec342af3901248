"""The snapshots and tags of a Paimon table, read while others commit, tag and expire.

pypaimon lists names and then opens the files: one that goes in between is an error there, and a tag is seen
half written. Readers hold no lock: to them such a snapshot has expired, and a tag appears by a rename.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from pypaimon.common.json_util import JSON
from pypaimon.snapshot.snapshot import Snapshot
from pypaimon.table.file_store_table import FileStoreTable
from pypaimon.tag.tag import Tag

from lakehouse.stores.versions import Recorded, Version, held_until, versions

_SNAPSHOT: Final = re.compile(r"snapshot-(\d+)")
_TAG: Final = "tag-"
_LOOKS: Final = 20
_PAUSE_SECONDS: Final = 0.05

TagFile: TypeAlias = tuple[str, int]
"""A tag's name and when its file was written, ns: a name may come back for another snapshot."""


@dataclass(frozen=True)
class History:
    """A table's past as far as it can be read: snapshots by id, oldest first, and those that tags keep."""

    live: Mapping[int, Snapshot]
    tagged: Mapping[str, Snapshot]

    @property
    def snapshots(self) -> dict[int, Snapshot]:
        """All snapshots, those of tags among them, by id, oldest first."""
        tagged = {snapshot.id: snapshot for snapshot in self.tagged.values()}
        return dict(sorted({**tagged, **self.live}.items()))

    @property
    def tags(self) -> dict[str, int]:
        """The tagged snapshots' ids by name."""
        return {name: snapshot.id for name, snapshot in self.tagged.items()}

    @property
    def versions(self) -> list[Version]:
        """The versions that can be read, oldest first."""
        recorded = [
            Recorded(one.id, one.time_millis, one.id - 1 if one.id > 1 else None)
            for one in self.snapshots.values()
        ]
        ends = {snapshot_id: held_until(name) for name, snapshot_id in self.tags.items()}
        return versions(recorded, {key: until for key, until in ends.items() if until is not None})


def read_history(
    opened: FileStoreTable, known: Mapping[TagFile, Snapshot]
) -> tuple[History, dict[TagFile, Snapshot]]:
    """Return a table's history, and the tags read: `known` the next time, as there may be hundreds."""
    # Snapshots first: expiry tags before it forgets, so none is missed that is only passing from one to the
    # other.
    live: dict[int, Snapshot] = {}
    for snapshot_id in sorted(_ids(_folder(opened))):
        snapshot = _read(_folder(opened) / f"snapshot-{snapshot_id}")
        if snapshot is not None:
            live[snapshot_id] = snapshot
    read: dict[TagFile, Snapshot] = {}
    for path in Path(opened.tag_manager().tag_directory()).glob(f"{_TAG}*"):
        try:
            file = path.name.removeprefix(_TAG), path.stat().st_mtime_ns
        except FileNotFoundError:
            continue
        snapshot = known.get(file) or _read(path)
        if snapshot is not None:
            read[file] = snapshot
    return History(live, {name: snapshot for (name, _), snapshot in sorted(read.items())}), read


def newest_snapshot(opened: FileStoreTable) -> Snapshot | None:
    """Return the newest snapshot, None for a table never written."""
    for _ in range(_LOOKS):
        try:
            return opened.snapshot_manager().get_latest_snapshot()
        except FileNotFoundError:
            continue  # sixteen commits later than the hint that was read
    return opened.snapshot_manager().get_latest_snapshot()


def set_tag(opened: FileStoreTable, name: str, snapshot: Snapshot) -> None:
    """Name a snapshot, so that its files stay.

    Raises:
        ValueError: there is a tag of that name.
    """
    tags = opened.tag_manager()
    if tags.tag_exists(name):
        raise ValueError(f"{opened.identifier} has a tag {name!r} already: choose another name, or remove it")
    path = Path(tags.tag_path(name))
    path.parent.mkdir(exist_ok=True)
    # Beside the snapshots, where `sweep` looks for half-written files.
    partial = _folder(opened) / f".{path.name}"
    partial.write_text(JSON.to_json(snapshot))
    partial.replace(path)


def _folder(opened: FileStoreTable) -> Path:
    return Path(opened.snapshot_manager().snapshot_dir)


def _ids(folder: Path) -> list[int]:
    matches = [_SNAPSHOT.fullmatch(path.name) for path in folder.glob("snapshot-*")]
    return [int(match[1]) for match in matches if match is not None]


def _read(path: Path) -> Snapshot | None:
    """Return a snapshot or a tag's snapshot; None where it is gone."""
    for _ in range(_LOOKS):
        try:
            return JSON.from_json(path.read_text(), Tag).trim_to_snapshot()
        except FileNotFoundError:
            return None
        except ValueError:
            time.sleep(_PAUSE_SECONDS)  # Flink is writing a tag, which it does in place
    return JSON.from_json(path.read_text(), Tag).trim_to_snapshot()
