"""Files that no snapshot names any more: deleted after a grace period.

A reader that planned its scan on an older snapshot still reads that snapshot's files. So what an expiry takes
the names from is written down (`settle`) and deleted later (`delete_due`).

A look at the whole table (`sweep`) finds what a killed process left behind. A writer's new files are named by
no snapshot before its commit, so that a file is deleted only after it was seen unnamed twice, with at least
the grace period in between. A file that was never named may be given a longer period: an engine that is down
holds files which it will commit when it is back.

What was seen when lies in a small file of its own; losing it costs nothing but time.

Beside each file that Hadoop writes on a local disk lies its checksum (`.<name>.crc`), which goes with it.
"""

import time
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import msgspec


@dataclass(frozen=True)
class Sweep:
    """What one look found: files deleted with their size, and files that wait for their grace to end."""

    deleted: int
    bytes: int
    waiting: int


class _Seen(msgspec.Struct, array_like=True, frozen=True):
    """An unnamed file: since when, as seconds since 1970, and whether a snapshot named it before."""

    since: float
    was_named: bool


def settle(record: Path, ceased: Set[str]) -> None:
    """Write down which files a snapshot named that has just been forgotten.

    Args:
        record: as in `sweep`.
        ceased: their paths.
    """
    if ceased:
        now = time.time()
        _write(record, _read(record) | {path: _Seen(now, was_named=True) for path in ceased})


def delete_due(record: Path, grace: timedelta) -> Sweep:
    """Delete the files that were settled `grace` ago or earlier; cheap, nothing is looked for.

    The caller holds the lock, as in `sweep`.
    """
    now = time.time()
    seen = _read(record)
    due = {
        path
        for path, one in seen.items()
        # A clock that stepped back must not make a grace period endless.
        if one.was_named and not 0 <= now - one.since < grace.total_seconds()
    }
    deleted = size = 0
    for path in due:
        files, freed = _delete(Path(path))
        deleted, size = deleted + files, size + freed
    if due:
        _write(record, {path: one for path, one in seen.items() if path not in due})
    return Sweep(deleted, size, len(seen) - len(due))


def sweep(
    present: Iterable[Path],
    named: Set[str],
    record: Path,
    grace: timedelta,
    *,
    not_yet_named: Callable[[Path], timedelta] | None = None,
) -> Sweep:
    """Delete files of `present` that are not in `named` and were not at a look `grace` ago or earlier.

    The caller holds the lock under which our own files become named.

    Args:
        present: every file of the table.
        named: paths of all files that a snapshot, tag or metadata file needs.
        record: where the times of earlier looks are kept; created when absent.
        grace: how long a file must have been unnamed; zero deletes at once.
        not_yet_named: the same for a file that was never named, as far as is known; `grace` where None.
    """
    now = time.time()
    seen = _read(record)
    waiting: dict[str, _Seen] = {}
    deleted = size = 0
    for path in present:
        name = str(path)
        if name in named or path == record or _is_checksum(path):
            continue
        before = seen.get(name, _Seen(now, was_named=False))
        # A clock that stepped back must not make a grace period endless.
        since = min(before.since, now)
        wait = grace if before.was_named or not_yet_named is None else not_yet_named(path)
        if now - since < wait.total_seconds():
            waiting[name] = _Seen(since, before.was_named)
            continue
        files, freed = _delete(path)
        deleted, size = deleted + files, size + freed
    _write(record, waiting)
    return Sweep(deleted, size, len(waiting))


def _delete(path: Path) -> tuple[int, int]:
    """Delete a file and its checksum; return how many were there, and their bytes."""
    deleted = size = 0
    for file in (path, path.with_name(f".{path.name}.crc")):
        if file.exists():
            size += file.stat().st_size
            file.unlink()
            deleted += 1
    return deleted, size


def _is_checksum(path: Path) -> bool:
    """Tell whether a file is the checksum of another that is there."""
    return path.name.startswith(".") and path.suffix == ".crc" and path.with_name(path.stem[1:]).exists()


def _read(record: Path) -> dict[str, _Seen]:
    try:
        return msgspec.json.decode(record.read_bytes(), type=dict[str, _Seen])
    except (FileNotFoundError, msgspec.MsgspecError):
        return {}  # a new table, or a record cut off by a power failure: every file's grace starts again


def _write(record: Path, seen: dict[str, _Seen]) -> None:
    partial = record.with_suffix(".partial")
    partial.write_bytes(msgspec.json.encode(seen))
    partial.replace(record)
