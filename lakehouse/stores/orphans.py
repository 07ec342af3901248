"""Files that no snapshot names any more: found by two looks, deleted after a grace period.

A reader that planned its scan on an older snapshot still reads that snapshot's files, and a writer's new
files are named by no snapshot before its commit. So a file is deleted only after it was seen unnamed
twice, with at least the grace period in between. What was seen when lies in a small file of its own;
losing it costs nothing but time. It also finds what a killed process left behind.
"""

import time
from collections.abc import Iterable, Set
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


def looked(record: Path, grace: timedelta) -> Sweep | None:
    """Return what the last look left, if it was less than a tenth of `grace` ago; None when one is due.

    A look lists the whole table and reads its manifests, which after many quick commits costs more than
    everything else an expiry does. Files stay a tenth longer for it.
    """
    try:
        age = time.time() - record.stat().st_mtime
        if 0 <= age < grace.total_seconds() / 10:
            return Sweep(0, 0, len(msgspec.json.decode(record.read_bytes(), type=dict[str, float])))
    except (FileNotFoundError, msgspec.MsgspecError):
        return None  # there was none, or a power failure cut its record off
    return None


def sweep(present: Iterable[Path], named: Set[str], record: Path, grace: timedelta) -> Sweep:
    """Delete files of `present` that are not in `named` and were not at a look `grace` ago or earlier.

    The caller holds the lock under which files become named.

    Args:
        present: every file of the table.
        named: paths of all files that a snapshot, tag or metadata file needs.
        record: where the times of earlier looks are kept; created when absent.
        grace: how long a file must have been unnamed; zero deletes at once.
    """
    now = time.time()
    try:
        seen = msgspec.json.decode(record.read_bytes(), type=dict[str, float])
    except (FileNotFoundError, msgspec.MsgspecError):
        seen = {}  # a new table, or a record cut off by a power failure: every file's grace starts again
    waiting: dict[str, float] = {}
    deleted = size = 0
    for path in present:
        name = str(path)
        if name in named or path == record:
            continue
        # A clock that stepped back must not make a grace period endless.
        since = min(seen.get(name, now), now)
        if now - since < grace.total_seconds():
            waiting[name] = since
            continue
        size += path.stat().st_size
        path.unlink()
        deleted += 1
    partial = record.with_suffix(".partial")
    partial.write_bytes(msgspec.json.encode(waiting))
    partial.replace(record)
    return Sweep(deleted, size, len(waiting))
