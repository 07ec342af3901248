"""Files that no snapshot names any more: found by two looks, deleted after a grace period.

A reader that planned its scan on an older snapshot still reads that snapshot's files, and a writer's new
files are named by no snapshot before its commit. So a file is deleted only after it was seen unnamed
twice, with at least the grace period in between. What was seen when lies in a small file of its own;
losing it costs nothing but time. It also finds what a killed process left behind.

A file that no snapshot has named yet may be given a longer period: an engine that is down holds files which
it will commit when it is back. Which files were named once is written down as they cease to be (`settle`).

Beside each file that Hadoop writes on a local disk lies its checksum (`.<name>.crc`), which goes with it.
"""

import contextlib
import os
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


def looked(record: Path, grace: timedelta) -> Sweep | None:
    """Return what the last look left, if it was less than a tenth of `grace` ago; None when one is due.

    A look lists the whole table and reads its manifests, which after many quick commits costs more than
    everything else an expiry does. Files stay a tenth longer for it.
    """
    try:
        age = time.time() - record.stat().st_mtime
        if 0 <= age < grace.total_seconds() / 10:
            return Sweep(0, 0, len(_decode(record.read_bytes())))
    except (FileNotFoundError, msgspec.MsgspecError):
        return None  # there was none, or a power failure cut its record off
    return None


def settle(record: Path, ceasing: Iterable[str]) -> None:
    """Write down that files were named by a snapshot, which is about to be forgotten.

    Args:
        record: as in `sweep`.
        ceasing: their paths.
    """
    seen, looked_at = {}, 0.0
    with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
        looked_at = record.stat().st_mtime
        seen = _decode(record.read_bytes())
    now = time.time()
    _write(record, seen | {path: _Seen(now, was_named=True) for path in ceasing})
    os.utime(record, (looked_at, looked_at))  # this was no look


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
    try:
        seen = _decode(record.read_bytes())
    except (FileNotFoundError, msgspec.MsgspecError):
        seen = {}  # a new table, or a record cut off by a power failure: every file's grace starts again
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
        for file in (path, path.with_name(f".{path.name}.crc")):
            if file.exists():
                size += file.stat().st_size
                file.unlink()
                deleted += 1
    _write(record, waiting)
    return Sweep(deleted, size, len(waiting))


def _is_checksum(path: Path) -> bool:
    """Tell whether a file is the checksum of another that is there."""
    return path.name.startswith(".") and path.suffix == ".crc" and path.with_name(path.stem[1:]).exists()


def _decode(record: bytes) -> dict[str, _Seen]:
    return msgspec.json.decode(record, type=dict[str, _Seen])


def _write(record: Path, seen: dict[str, _Seen]) -> None:
    partial = record.with_suffix(".partial")
    partial.write_bytes(msgspec.json.encode(seen))
    partial.replace(record)
