"""Versions of a table: which one held at a moment, and which ones stay readable when the others expire.

A version is a snapshot with the stretch of time in which it was the table. A snapshot begins with its commit;
that it held until another moment is known while its successor is there. Expiry forgets successors: before
that it writes down, as the name of a tag, until when the snapshot held. So every answer about the past is
exact, or it is refused with the moments that can be had.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from lakehouse.market.time import DAY_US, HOUR_US, MINUTE_US, from_datetime, to_datetime

_MS: Final = 1_000
"""Microseconds: snapshots have the time of their commit in milliseconds."""
_PREFIX: Final = "held-until-"
_FORMAT: Final = "%Y%m%dT%H%M%S"


class PastError(Exception):
    """The table as it stood then can't be had; the text says what can."""


@dataclass(frozen=True)
class Recorded:
    """A snapshot that is there: its id, its commit in ms since 1970, and the one that it was made on.

    `follows` is None for a table's first, and any other id where the one before has expired.
    """

    snapshot_id: int
    since_ms: int
    follows: int | None


@dataclass(frozen=True)
class Version:
    """A snapshot and the time it held, both ends included, in ms since 1970; the newest holds on (None)."""

    snapshot_id: int
    since_ms: int
    until_ms: int | None
    is_first: bool
    """Nothing was in the table before."""


@dataclass(frozen=True)
class Rung:
    """Moments whose state is kept: each `every_ms` (shifted by `offset_ms`) until it is `span_ms` old."""

    every_ms: int
    offset_ms: int
    span_ms: int


_MINUTE: Final = MINUTE_US // _MS
_HOUR: Final = HOUR_US // _MS
_DAY: Final = DAY_US // _MS

LADDER: Final = (Rung(_MINUTE, 0, _HOUR), Rung(_HOUR, 0, 2 * _DAY), Rung(_DAY, 2 * _HOUR, 90 * _DAY))
"""Each minute for an hour, each hour for two days, each day for ninety.

Two hundred snapshots: with six hundred every commit to an Iceberg table, which copies its metadata, took
three times as long.

A day's state is that of 02:00 UTC: the day before has been sealed by then, so that the snapshot shares its
files with the present and pins few others.
"""


def wanted(since_ms: int, until_ms: int, now_ms: int, ladder: Sequence[Rung] = LADDER) -> bool:
    """Tell whether what held from `since_ms` until `until_ms` is the state of a moment to keep."""
    for rung in ladder:
        newest = until_ms - (until_ms - rung.offset_ms) % rung.every_ms
        if newest >= max(since_ms, now_ms - rung.span_ms):
            return True
    return False


def held_tag(until_ms: int) -> str:
    """Return the name of the tag that keeps a snapshot which held until then."""
    return f"{_PREFIX}{to_datetime(until_ms * _MS).strftime(_FORMAT)}.{until_ms % 1000:03}Z"


def held_until(tag: str) -> int | None:
    """Return until when a tag's snapshot held, ms since 1970; None for a tag of another kind."""
    try:
        moment = datetime.strptime(tag, f"{_PREFIX}{_FORMAT}.%fZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return from_datetime(moment) // _MS


def versions(history: Sequence[Recorded], held: Mapping[int, int]) -> list[Version]:
    """Return the versions that can be read, oldest first.

    Args:
        history: the snapshots that are there, oldest first.
        held: until when snapshots held that are followed by others which expired, by id.
    """
    found = []
    for at, one in enumerate(history):
        successor = history[at + 1] if at + 1 < len(history) else None
        until: int | None = None
        if successor is not None and successor.follows == one.snapshot_id:
            until = max(successor.since_ms - 1, one.since_ms)
        elif successor is not None:
            until = max(held.get(one.snapshot_id, 0), one.since_ms)
        found.append(Version(one.snapshot_id, one.since_ms, until, one.follows is None))
    return found


def version_at(table: str, readable: Sequence[Version], moment_us: int) -> Version | None:
    """Return the version that held at a moment; None when the table was empty then.

    Args:
        table: its name, for the message.
        readable: its versions, oldest first.
        moment_us: µs since 1970; a commit of the same millisecond counts.

    Raises:
        PastError: what held then has expired.
    """
    moment_ms = moment_us // _MS
    before = [version for version in readable if version.since_ms <= moment_ms]
    if not before:
        if not readable or readable[0].is_first:
            return None
        raise PastError(
            f"{table} as of {_text(moment_ms)} has expired: the oldest that can be read is "
            f"--as-of {_text(readable[0].since_ms)}"
        )
    found = before[-1]
    if found.until_ms is None or moment_ms <= found.until_ms:
        return found
    after = readable[len(before)]
    raise PastError(
        f"{table} as of {_text(moment_ms)} has expired: the nearest that can be read are --as-of "
        f"{_text(found.until_ms)} and {_text(after.since_ms)}, the oldest is {_text(readable[0].since_ms)}"
    )


@dataclass(frozen=True)
class Expiry:
    """What an expiry has to do, by snapshot id: tags to set and to remove (by name), snapshots to forget."""

    tag: Mapping[str, int]
    untag: Collection[str]
    forget: Collection[int]


def plan_expiry(
    readable: Sequence[Version],
    tags: Mapping[str, int],
    stay: Collection[int],
    now_ms: int,
    ladder: Sequence[Rung],
) -> Expiry:
    """Return what leaves a table with the snapshots in `stay`, those that tags name, and the ladder's.

    Args:
        readable: the table's versions, oldest first.
        tags: all tags with their snapshots.
        stay: snapshots that stay whatever their age.
        now_ms: the present.
        ladder: the moments whose state is kept.
    """
    ours = {snapshot_id: name for name, snapshot_id in tags.items() if held_until(name) is not None}
    named = {snapshot_id for name, snapshot_id in tags.items() if held_until(name) is None} | set(stay)
    new: dict[str, int] = {}
    outlived: list[str] = []
    forget: list[int] = []
    for version in readable:
        kept = version.until_ms is None or version.snapshot_id in stay
        if not kept and version.until_ms is not None:
            kept = wanted(version.since_ms, version.until_ms, now_ms, ladder)
            if kept and version.snapshot_id not in ours:
                new[held_tag(version.until_ms)] = version.snapshot_id
            elif not kept and version.snapshot_id in ours:
                outlived.append(ours[version.snapshot_id])
        if not kept and version.snapshot_id not in named:
            forget.append(version.snapshot_id)
    return Expiry(new, outlived, forget)


def files_alone(
    history: Sequence[int],
    forgotten: Collection[int],
    alone: Callable[[list[int], int | None, int | None], set[str]],
) -> set[str]:
    """Return the files that only forgotten snapshots name.

    A file belongs to consecutive snapshots: once it is out of a table it never comes back. So a stretch of
    forgotten snapshots has for itself what neither its neighbour before nor the one after has, and no other
    snapshot need be read.

    Args:
        history: ids of all snapshots before anything is forgotten, oldest first.
        forgotten: those that are.
        alone: returns what a stretch names and neither of its neighbours (None: there is none) does.
    """
    found: set[str] = set()
    for stretch, before, after in _stretches(history, forgotten):
        found |= alone(stretch, before, after)
    return found


def _stretches(
    history: Sequence[int], forgotten: Collection[int]
) -> Iterator[tuple[list[int], int | None, int | None]]:
    before: int | None = None
    stretch: list[int] = []
    for snapshot_id in history:
        if snapshot_id in forgotten:
            stretch.append(snapshot_id)
            continue
        if stretch:
            yield stretch, before, snapshot_id
        before, stretch = snapshot_id, []
    if stretch:
        yield stretch, before, None


def _text(moment_ms: int) -> str:
    return f"{to_datetime(moment_ms * _MS).strftime('%Y-%m-%dT%H:%M:%S')}.{moment_ms % 1000:03}Z"
