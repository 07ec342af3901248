"""What a spine promises: topics of partitions, appended durably, read by offset.

A message is bytes. Within a partition messages have consecutive offsets, starting at 0, in the order in
which they were published. There is one publisher for a partition at a time and any number of readers; only
to `replay` several publish, whose messages say whose they are.

All calls block and may be made from any thread; an implementation over an asynchronous client runs its
own event loop. Errors are `SpineError`s, and after one the caller may simply call again.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Protocol, Self
from zlib import crc32


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    number: int


class Batch(NamedTuple):
    """Consecutive messages of one partition; `payloads[i]` has the offset `first_offset + i`."""

    first_offset: int
    published_us: Sequence[int]
    """When each became durable, µs UTC, not decreasing."""
    payloads: Sequence[bytes]

    @property
    def next_offset(self) -> int:
        """The offset to read from next."""
        return self.first_offset + len(self.payloads)


class SpineError(Exception):
    """The log could not do what was asked; nothing was half done. Its text says what to do."""


class SpineUnavailableError(SpineError):
    """The log can't be reached or its disk is full: worth trying again."""


class OffsetExpiredError(SpineError):
    """Messages of `partition` at this offset were dropped by retention; `earliest` is the first left."""

    def __init__(self, partition: Partition, offset: int, earliest: int) -> None:
        super().__init__(
            f"{partition.topic}/{partition.number} starts at offset {earliest}; {offset} was dropped by "
            "retention before it was read"
        )
        self.partition = partition
        self.earliest = earliest


class OffsetAheadError(SpineError):
    """The log ends before an offset that was already read: the log lost messages, or is another log."""

    def __init__(self, partition: Partition, offset: int, end: int) -> None:
        super().__init__(
            f"{partition.topic}/{partition.number} ends at offset {end}, but {offset} was reached before: "
            "the log was truncated or replaced. Restore it, or start with an empty LAKEHOUSE_HOME"
        )
        self.end = end


class Spine(Protocol):
    """A durable log of topics and partitions."""

    @property
    def partitions(self) -> int:
        """Partitions of each topic, fixed when the log was created (`sessions` has one)."""
        ...

    def publish(self, batch: Mapping[Partition, Sequence[bytes]]) -> dict[Partition, int]:
        """Append messages and return each partition's first new offset.

        On return they are durable: neither kill -9 nor a power cut takes them back. When the call
        raises or the process dies, a prefix of each partition's messages may have been appended, taken
        in the order of `batch`: a publisher that must not repeat itself looks at `settled_ends`.
        (The SQLite spine appends all or none.)

        Raises:
            SpineUnavailableError: not appended as a whole; publish again what `settled_ends` lacks.
        """
        ...

    def read(self, partition: Partition, offset: int, limit: int) -> Batch:
        """Return up to `limit` messages from `offset` on; none when the log ends there.

        Never blocks to wait for messages.

        Raises:
            OffsetExpiredError: retention dropped `offset`.
            OffsetAheadError: `offset` is beyond the end.
        """
        ...

    def start(self, partition: Partition) -> int:
        """Return the offset of the first message still there (the end, where none is)."""
        ...

    def end(self, partition: Partition) -> int:
        """Return the offset that the next message will have."""
        ...

    def settled_ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Return where partitions end, for who is going to publish to them.

        What a publisher before, or an own call that failed, may still have on its way is waited for.
        """
        ...

    def commit(self, group: str, offsets: Mapping[Partition, int]) -> None:
        """Record durably that `group` needs nothing before these offsets any more.

        Raises:
            OffsetAheadError: the log ends before one of them; those of other partitions may be recorded.
        """
        ...

    def committed(self, group: str, partition: Partition) -> int | None:
        """Return the offset a group committed last, None where it never did (or, in Iggy, only 0)."""
        ...

    def retain(self, readers: Mapping[str, Sequence[str]], max_age_us: int, max_bytes: int) -> int:
        """Drop old messages and return how many.

        A message may go when it is older than `max_age_us` or its partition holds more than `max_bytes`,
        and only if every group in `readers` that reads its topic has committed an offset beyond it. A
        group that has committed nothing yet holds everything. Messages go in runs as they are stored, and
        a run stays until all of it may go.

        Args:
            readers: for each topic the groups that read it; other topics are left alone.
            max_age_us: age by publishing time.
            max_bytes: size of one partition's payloads.
        """
        ...

    def close(self) -> None:
        """Release what the log holds; it can't be used afterwards."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def partition_number(product: str, partitions: int) -> int:
    """Return the partition a product's messages go to: CRC-32 of its name modulo the partition count."""
    return crc32(product.encode()) % partitions
