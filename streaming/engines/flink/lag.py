"""How many rows in Fluss the streaming job has not read yet."""

import asyncio
from collections.abc import Mapping

import fluss

from lakehouse.stores.fluss_connection import FlussStoreError, FlussTarget, connect
from lakehouse.stores.fluss_tables import LOGS, offsets


class Lag:
    """Asks Fluss where its logs end, over a connection that is kept.

    Args:
        runner: the event loop of the thread.
        target: where the tables are.
    """

    def __init__(self, runner: asyncio.Runner, target: FlussTarget) -> None:
        self._runner = runner
        self._target = target
        self._connection: fluss.FlussConnection | None = None

    def rows(self, positions: Mapping[tuple[str, int], int], *, from_start: bool) -> dict[str, int]:
        """Return the rows of each log that a job has not read.

        Args:
            positions: the offsets up to which it has read, where it says so: it does once it has read a row.
            from_start: whether a bucket without a position counts in full, and not as read: so for a job that
                has made no checkpoint yet.

        Raises:
            FlussStoreError: Fluss did not answer; the next call connects anew.
        """
        try:
            return self._runner.run(self._rows(positions, from_start))
        except FlussStoreError:
            self._connection = None  # dropped, not closed: closing one that hangs would hang as well
            raise

    async def _rows(self, positions: Mapping[tuple[str, int], int], from_start: bool) -> dict[str, int]:
        connection = self._connection = self._connection or await connect(self._target)
        behind = {}
        for name in LOGS:
            ends = await offsets(connection, self._target, name, fluss.OffsetSpec.latest())
            behind[name] = sum(
                max(end - positions.get((name, bucket), 0 if from_start else end), 0)
                for bucket, end in ends.items()
            )
        return behind
