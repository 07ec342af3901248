"""The contract of a stage, and what stages do alike: reading a topic, freeing the log."""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from streaming.spine.contract import Batch, Partition, Spine

FREE_EVERY_SECONDS: Final = 30.0


@dataclass(frozen=True)
class StepResult:
    """What one step did."""

    messages: Mapping[str, int] = field(default_factory=dict)
    """Messages taken in and committed, by topic; empty when there were none."""
    behind: bool = False
    """True when the step took in as much as it may at once: there is probably more."""
    duplicates: int = 0
    """Trades among them that were there already."""
    too_late: int = 0
    """Trades among them that came after the lateness horizon."""


class Stage(Protocol):
    """One stage of the engine: from its own offsets in the log to its own tables.

    A stage is used by one thread. It starts where its table says it stopped, so a new object goes on where
    the last one was killed, at whatever moment that was.
    """

    @property
    def name(self) -> str:
        """The stage's name, which is also its consumer group in the log."""
        ...

    def step(self) -> StepResult:
        """Read what is there (a bounded part of it), transform it, and commit it with the offsets after it.

        Never waits for messages. After an error nothing, or a whole commit, has happened; the next call
        starts from what the table says.

        Raises:
            MalformedMessageError: a message can't be read; the stage stays before it.
            SpineError: the log did not answer, or is not the one that was read before.
            Exception: whatever the store raised.
        """
        ...

    def lag(self) -> dict[Partition, int]:
        """Return how many messages of each partition are not committed yet; may be called from any thread."""
        ...

    def newest_us(self) -> Mapping[str, int]:
        """Return the time of each product's newest committed trade, µs UTC; from any thread."""
        ...

    def close(self) -> None:
        """Let the log drop what is committed, for good. The spine and the store stay the caller's."""
        ...


class TopicReader:
    """A stage's place in one topic."""

    def __init__(self, spine: Spine, topic: str, offsets: Mapping[int, int]) -> None:
        """Start at `offsets` by partition number; a partition not named there starts at its beginning."""
        self._spine = spine
        self.topic = topic
        self._next: dict[Partition, int] = {}
        for number in range(spine.partitions):
            partition = Partition(topic, number)
            offset = offsets.get(number)
            self._next[partition] = spine.start(partition) if offset is None else offset

    @property
    def offsets(self) -> dict[Partition, int]:
        """The next offset of each partition."""
        return dict(self._next)

    def read(self, limit: int) -> list[tuple[Partition, Batch]]:
        """Return what is next in each partition, at most `limit` messages of each; `advance` goes past it.

        Raises:
            SpineError: see `Spine.read`.
        """
        found = []
        for partition, offset in self._next.items():
            batch = self._spine.read(partition, offset, limit)
            if batch.payloads:
                found.append((partition, batch))
        return found

    def advance(self, batches: list[tuple[Partition, Batch]]) -> None:
        """Go past what was read."""
        for partition, batch in batches:
            self._next[partition] = batch.next_offset

    def skip_to(self, partition: Partition, offset: int) -> None:
        """Go on at another offset of a partition."""
        self._next[partition] = offset

    def lag(self) -> dict[Partition, int]:
        """Return how many messages of each partition are still to be read."""
        return {partition: self._spine.end(partition) - offset for partition, offset in self.offsets.items()}


def offsets_of(readers: Iterable[TopicReader]) -> dict[Partition, int]:
    """Return the next offset of each partition of several topics."""
    return {partition: offset for reader in readers for partition, offset in reader.offsets.items()}


def lag_of(readers: Iterable[TopicReader]) -> dict[Partition, int]:
    """Return how many messages of each partition of several topics are still to be read."""
    return {partition: lag for reader in readers for partition, lag in reader.lag().items()}


class Freeing:
    """Tells the log now and then what a stage doesn't need any more.

    None of the table formats syncs its files, so this asks the system to write everything to the disk first
    (`synced`): a power cut must not find the log shorter than the tables need it. That is too slow to do at
    every commit.
    """

    def __init__(self, spine: Spine, group: str, *, synced: bool) -> None:
        self._spine = spine
        self._group = group
        self._synced = synced
        self._due = time.monotonic() + FREE_EVERY_SECONDS

    def after_commit(self, offsets: Mapping[Partition, int], *, now: bool = False) -> None:
        """Commit `offsets`, which the tables hold already, if it is time to, or `now`.

        Raises:
            SpineError: the log did not take them; they are committed another time.
        """
        if not self._is_due(now):
            return
        if self._synced:
            os.sync()
        self._spine.commit(self._group, offsets)
        self._due = time.monotonic() + FREE_EVERY_SECONDS

    def _is_due(self, now: bool) -> bool:
        return now or time.monotonic() >= self._due


def beginning(batch: Batch, max_bytes: int) -> Batch:
    """Return as many messages of a batch as have `max_bytes` together; at least one."""
    if sum(map(len, batch.payloads)) <= max_bytes:
        return batch
    size = 0
    for count, payload in enumerate(batch.payloads):
        size += len(payload)
        if size > max_bytes and count:
            return Batch(batch.first_offset, batch.published_us[:count], batch.payloads[:count])
    return batch
