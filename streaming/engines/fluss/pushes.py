"""Pushes on their way to Fluss: several at once, so that a message waits for none but its own."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from lakehouse.stores.fluss_writer import FlussWriter, Sent
from streaming.engines.fluss.current_table import CurrentTable
from streaming.engines.fluss.metrics import ACKNOWLEDGED, IN_FLIGHT
from streaming.engines.metrics import COMMIT_SECONDS
from streaming.spine.contract import Batch, Partition
from streaming.spine.topics import BRIDGE, QUOTES, TRADES

Batches = Sequence[tuple[Partition, Batch]]


class Push(NamedTuple):
    """Messages that were sent together."""

    batches: Batches
    rows: Mapping[str, pa.Table]
    """Their rows, by topic."""
    sent: Sent
    started: float


class Pushes:
    """What one writer has sent and Fluss has not acknowledged, oldest first; used by one thread."""

    def __init__(self, writer: FlussWriter, current: CurrentTable) -> None:
        """Begin with none.

        Args:
            writer: sends them.
            current: is told what has been acknowledged.
        """
        self._writer = writer
        self._current = current
        self._sent: deque[Push] = deque()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._sent)

    def send(self, rows: Mapping[str, pa.Table], batches: Batches = ()) -> None:
        """Send rows, by topic.

        Raises:
            FlussStoreError: see `FlussWriter.send`.
        """
        self._sent.append(Push(batches, rows, self._writer.send(rows), time.perf_counter()))
        self._show()

    def landed(self, within_seconds: float) -> list[Push]:
        """Return those that are acknowledged; wait for the first of them at most so long.

        Raises:
            FlussStoreError: see `FlussWriter.acknowledged`.
        """
        found: list[Push] = []
        while self._sent and self._writer.acknowledged(
            self._sent[0].sent, within_seconds=0 if found else within_seconds
        ):
            push = self._sent.popleft()
            self._current.take(push.rows.get(TRADES), push.rows.get(QUOTES))
            for topic, table in push.rows.items():
                ACKNOWLEDGED.labels(topic).inc(table.num_rows)
            COMMIT_SECONDS.labels(BRIDGE, "fluss").observe(time.perf_counter() - push.started)
            found.append(push)
        self._show()
        return found

    def _show(self) -> None:
        IN_FLIGHT.set(sum(table.num_rows for push in self._sent for table in push.rows.values()))
