"""What the archive holds of the log: where the bridge starts from, and what it frees the log by."""

from typing import Protocol

from streaming.spine.contract import Partition, Spine
from streaming.spine.topics import ARCHIVE


class Archived(Protocol):
    """What the archive holds of the log."""

    def refresh(self) -> None:
        """Look at what the archive has got since the last time."""
        ...

    def frontier(self, partition: Partition) -> int:
        """Return the first offset that the archive doesn't hold, from the group's committed one on."""
        ...

    def reached(self, partition: Partition) -> int:
        """Return an offset; what the archive lacks before it was passed by, and isn't on its way."""
        ...

    def holes(self, partition: Partition, end: int) -> list[tuple[int, int]]:
        """Return the ranges of offsets before `end`, both ends included, that the archive lacks."""
        ...


class CommittedByArchive:
    """`Archived` where the embedded engine fills the archive, from the log and not from Fluss.

    Its stage says in the log how far it is, and passes nothing by.
    """

    def __init__(self, spine: Spine) -> None:
        self._spine = spine

    def refresh(self) -> None:
        """See `Archived.refresh`; the log is asked each time."""

    def frontier(self, partition: Partition) -> int:
        """See `Archived.frontier`; as far as it is on the disk."""
        committed = self._spine.committed(ARCHIVE, partition)
        return self._spine.start(partition) if committed is None else committed

    def reached(self, partition: Partition) -> int:
        """See `Archived.reached`; it passes nothing by."""
        return 0

    def holes(self, partition: Partition, end: int) -> list[tuple[int, int]]:
        """See `Archived.holes`."""
        return []
