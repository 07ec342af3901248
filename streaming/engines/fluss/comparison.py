"""What Flink passed by: messages that the archive lacks although it should have them by now.

Fluss and Flink promise to lose nothing, and mostly do. Where they don't (all tablet servers dead at once, a
log truncated under a running job) nothing in them shows it, so the archive is compared with the log.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from streaming.engines.fluss.archived import Archived
from streaming.spine.contract import Partition

LONGEST_PAUSE_SECONDS: Final = 600.0
"""Between two pushes of what stays missing: Flink may be down for hours."""


class Missing(NamedTuple):
    """Messages of one partition, both ends included."""

    partition: Partition
    first: int
    last: int

    @property
    def messages(self) -> int:
        """How many they are."""
        return self.last - self.first + 1


class _Moment(NamedTuple):
    """How far Fluss and the archive were."""

    at: float
    acknowledged: Mapping[Partition, int]
    reached: Mapping[Partition, int]


class Comparison:
    """Compares the archive with the log now and then.

    A message counts as missing when it was acknowledged longer ago than `grace_seconds` and the archive
    either holds later ones of its partition, or nothing came after it in all that time. What lies between
    the archive's end and the log's is not missing: Flink is on its way. So it is while it catches up, one
    product before the other: as long as the archive comes forward, only what every product has left behind
    counts.
    """

    def __init__(
        self, archived: Archived, *, grace_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._archived = archived
        self._grace = grace_seconds
        self._clock = clock
        self._seen: deque[_Moment] = deque()
        self._pushes: dict[Partition, int] = {}
        self._not_before: dict[Partition, float] = {}

    def compare(self, acknowledged: Mapping[Partition, int]) -> list[Missing]:
        """Return what is missing; `acknowledged` are the offsets up to which all was pushed.

        `Archived.refresh` is the caller's.
        """
        now = self._clock()
        while len(self._seen) > 1 and self._seen[1].at <= now - self._grace:
            self._seen.popleft()
        reached = {partition: self._archived.reached(partition) for partition in acknowledged}
        self._seen.append(_Moment(now, dict(acknowledged), reached))
        before = self._seen[0]
        if before.at > now - self._grace:
            return []
        found: list[Missing] = []
        for partition, end in acknowledged.items():
            old = before.acknowledged.get(partition, 0)
            comes_forward = reached[partition] > before.reached.get(partition, 0)
            limit = min(old, reached[partition]) if comes_forward else old
            for first, last in self._archived.holes(partition, end):
                on_its_way = last + 1 == end and end != old
                if first < limit and not on_its_way:
                    found.append(Missing(partition, first, min(last, limit - 1)))
        for partition in {*self._pushes} - {missing.partition for missing in found}:
            del self._pushes[partition], self._not_before[partition]
        return found

    def due(self, missing: Missing) -> bool:
        """Tell whether to push it (again): each time later, so that what can't arrive doesn't fill Fluss."""
        return self._clock() >= self._not_before.get(missing.partition, 0.0)

    def pushed(self, partitions: set[Partition]) -> None:
        """Remember that what is missing in these partitions is on its way again."""
        for partition in partitions:
            times = self._pushes.get(partition, 0)
            self._pushes[partition] = times + 1
            pause = min(self._grace * 2**times, LONGEST_PAUSE_SECONDS)
            self._not_before[partition] = self._clock() + pause

    def forget(self) -> None:
        """Start over: the offsets went back."""
        self._seen.clear()
