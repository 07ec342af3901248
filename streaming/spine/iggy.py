"""The spine in an Iggy server: a stream of topics, polled by offset, each message durable when acknowledged.

Partitions are assigned by their number and read by offsets that belong to the reader. A group's committed
offset is stored on the server, as a consumer of the group's name, so that Iggy's own tools show how far
behind it is. Iggy counts there the last message done with, so a group that committed 0 has stored nothing.

Retention drops whole segments. The server deletes none that ends behind the offset of any consumer, so
`retain` stores the offset up to which nothing is needed any more as a consumer of its own, `retention`.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

import apache_iggy
from apache_iggy import Consumer, PollingStrategy, ReceiveMessage, SendMessage, TopicDetails

from lakehouse.market.time import now_us
from lakehouse.settings import Settings
from streaming.spine import iggy_requests as requests
from streaming.spine.contract import (
    Batch,
    OffsetAheadError,
    OffsetExpiredError,
    Partition,
    SpineError,
    SpineUnavailableError,
)
from streaming.spine.iggy_connection import IggyConnection, IggyRefusedError
from streaming.spine.iggy_topics import prepare
from streaming.spine.topics import GROUPS, SESSIONS, TOPICS

MAX_READ_BYTES: Final = 64 * 2**20
"""A read asks for no more once it has so many bytes, even if `limit` allows more."""

MAX_MESSAGE_BYTES: Final = 64_000_000
"""The longest message Iggy takes; the shortest has one byte."""

SEGMENT_BYTES: Final = 64 * 2**20
"""Size of a segment in topics made here: what retention drops at once."""

RETENTION: Final = "retention"
"""The consumer whose stored offset says what nobody needs any more."""

_SEND_BYTES: Final = 8 * 2**20
_SEND_MESSAGES: Final = 10_000
_FIRST_POLL: Final = 1_000
"""Messages asked for before it is known how long they are: Iggy bounds its answer by their number only."""
_LONGEST_POLL: Final = 50_000

_READER: Final = Consumer.Single("lakehouse")
"""Who polls; its offset is never stored."""

_DELETED_WITHIN_SECONDS: Final = 0.5
_SETTLED_SECONDS: Final = 1.0


class IggySpine:
    """A `Spine` in an Iggy server; open it in as many processes as needed."""

    def __init__(
        self, connection: IggyConnection, stream: str, partitions: int, segment_bytes: Mapping[str, int]
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._partitions = partitions
        self._segment_bytes = segment_bytes
        self._all = {
            Partition(topic, number)
            for topic in TOPICS
            for number in range(1 if topic == SESSIONS else partitions)
        }

    @classmethod
    def open(cls, settings: Settings, stream: str, *, segment_bytes: int = SEGMENT_BYTES) -> Self:
        """Open a log, creating what is absent of the stream and its topics.

        Args:
            settings: those of Iggy, and the number of partitions.
            stream: name of the stream.
            segment_bytes: size of the segments of topics that are created.

        Raises:
            SpineUnavailableError: no server was reached.
            SpineError: it doesn't let us in, or a topic is of another shape or would lose messages.
        """
        connection = IggyConnection(settings)
        try:
            segments = prepare(
                connection,
                stream,
                {topic: 1 if topic == SESSIONS else settings.spine_partitions for topic in TOPICS},
                segment_bytes=segment_bytes,
                allow_weak=settings.iggy_allow_weak_topics,
            )
        except BaseException:
            connection.close()
            raise
        return cls(connection, stream, settings.spine_partitions, segments)

    @property
    def partitions(self) -> int:
        """Partitions of each topic; `sessions` has one."""
        return self._partitions

    def publish(self, batch: Mapping[Partition, Sequence[bytes]]) -> dict[Partition, int]:
        """Append partition after partition, in parts of at most some megabytes; see `Spine.publish`."""
        for partition, payloads in batch.items():
            self._check(partition)
            for payload in payloads:
                if not 1 <= len(payload) <= MAX_MESSAGE_BYTES:
                    raise SpineError(
                        f"Iggy takes messages of 1 to {MAX_MESSAGE_BYTES:,} bytes; one for "
                        f"{partition.topic}/{partition.number} has {len(payload):,}"
                    )
        first_offsets: dict[Partition, int] = {}
        for partition, payloads in batch.items():
            for part in _parts(payloads):
                first_offsets.setdefault(partition, self._send(partition, part))
            if partition not in first_offsets:
                first_offsets[partition] = self.end(partition)
        return first_offsets

    def read(self, partition: Partition, offset: int, limit: int) -> Batch:
        """Return messages from `offset` on; see `Spine.read`. Asks for no more after `MAX_READ_BYTES`."""
        self._check(partition)
        times: list[int] = []
        payloads: list[bytes] = []
        size = 0
        count = min(limit, _FIRST_POLL)
        while count > 0:
            found = self._poll(partition, PollingStrategy.Offset(offset + len(payloads)), count)
            messages = _consecutive(found, offset + len(payloads))
            taken = [message.payload() for message in messages]
            times += [message.timestamp() for message in messages]
            payloads += taken
            size += sum(map(len, taken))
            if len(messages) < count:
                break
            affordable = (MAX_READ_BYTES - size) * len(payloads) // size
            count = min(limit - len(payloads), affordable, _LONGEST_POLL)
        if not payloads:
            self._check_within(partition, offset)
        return Batch(offset, times, payloads)

    def start(self, partition: Partition) -> int:
        """Return the first offset still there."""
        self._check(partition)
        first = self._poll(partition, PollingStrategy.First(), 1)
        if not first:
            end = self.end(partition)
            first = self._poll(partition, PollingStrategy.First(), 1)
        start = first[0].offset() if first else end
        if start > (self.committed(RETENTION, partition) or 0):
            raise self._not_whole(partition, "its beginning")
        return start

    def end(self, partition: Partition) -> int:
        """Return the offset of the next message."""
        return _end(self._state(partition))

    def settled_ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Return where partitions end once that hasn't changed for a while; see `Spine.settled_ends`.

        What was asked on a connection that broke may be carried out after what is asked on the next one.
        Iggy has no way to fence it off, but it takes long only while the server hangs.
        """
        wanted = list(partitions)
        ends = {partition: self.end(partition) for partition in wanted}
        while True:
            time.sleep(_SETTLED_SECONDS)
            before, ends = ends, {partition: self.end(partition) for partition in wanted}
            if before == ends:
                return ends

    def commit(self, group: str, offsets: Mapping[Partition, int]) -> None:
        """Store a group's offsets on the server; see `Spine.commit`."""
        for partition, offset in offsets.items():
            if offset > 0:
                self._store(group, partition, offset)
            elif self.committed(group, partition) is not None:
                self._forget(group, partition)

    def committed(self, group: str, partition: Partition) -> int | None:
        """Return the offset a group committed last, None where it never did or only 0."""
        self._check(partition)
        request = requests.get_offset(group, self._stream, *partition)
        last = requests.stored_offset(self._ask_binary(requests.GET_OFFSET, request))
        return None if last is None else last + 1

    def retain(self, readers: Mapping[str, Sequence[str]], max_age_us: int, max_bytes: int) -> int:
        """Drop old segments that every reader is done with; see `Spine.retain`.

        A segment goes as a whole and the newest never does, so more is kept than asked for, by up to one
        segment of each partition. `max_bytes` is held against what Iggy counts, some 50 bytes a message more
        than the payloads. Groups that read a topic no more are forgotten, or they would hold it for ever.
        """
        oldest = now_us() - max_age_us
        dropped = 0
        for partition in sorted(self._all):
            if partition.topic not in readers:
                continue
            groups = readers[partition.topic]
            for group in GROUPS:
                if group not in groups and self.committed(group, partition) is not None:
                    self._forget(group, partition)
            positions = [self.committed(group, partition) or 0 for group in groups]
            if safe := min(positions, default=0):
                dropped += self._drop_segments(partition, safe, oldest, max_bytes)
        return dropped

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, partition: Partition, payloads: Sequence[bytes]) -> int:
        messages = [SendMessage(payload) for payload in payloads]
        answer = self._connection.ask(
            lambda client: client.send_messages(self._stream, partition.topic, partition.number, messages)
        )
        if not answer.confirmations:
            return self.end(partition) - len(messages)
        return answer.confirmations[0].base_offset

    def _poll(self, partition: Partition, where: PollingStrategy, count: int) -> list[ReceiveMessage]:
        return self._connection.ask(
            lambda client: client.poll_messages(
                self._stream,
                partition.topic,
                consumer=_READER,
                polling_strategy=where,
                count=count,
                auto_commit=False,
                partition_id=partition.number,
            )
        )

    def _state(self, partition: Partition) -> apache_iggy.Partition:
        self._check(partition)
        topic: TopicDetails | None = self._connection.ask(
            lambda client: client.get_topic(self._stream, partition.topic)
        )
        for state in topic.partitions if topic else ():
            if state.id == partition.number:
                return state
        raise SpineError(
            f"Iggy's {self._stream}/{partition.topic}/{partition.number} is gone: restore it, or start with "
            "an empty LAKEHOUSE_HOME"
        )

    def _check_within(self, partition: Partition, offset: int) -> None:
        """Raise what keeps a message from being read, where it isn't that there is none yet."""
        end = self.end(partition)
        if offset > end:
            raise OffsetAheadError(partition, offset, end)
        if offset == end:
            return
        again = self._poll(partition, PollingStrategy.Offset(offset), 1)
        if again and again[0].offset() == offset:
            return  # it was published in between
        if offset < (start := self.start(partition)):
            raise OffsetExpiredError(partition, offset, start)
        raise self._not_whole(partition, f"offset {offset}")

    def _not_whole(self, partition: Partition, missing: str) -> SpineUnavailableError:
        """Iggy may show too little for a moment after it was started; it must not pass for retention."""
        return SpineUnavailableError(
            f"Iggy doesn't show {missing} of {self._stream}/{partition.topic}/{partition.number}, which "
            "nobody dropped: wait while it starts, and if that doesn't help, restore its files"
        )

    def _store(self, consumer: str, partition: Partition, offset: int) -> None:
        self._check(partition)
        request = requests.store_offset(consumer, self._stream, *partition, offset - 1)
        try:
            self._ask_binary(requests.STORE_OFFSET, request)
        except IggyRefusedError as error:
            if not error.reason.startswith("Invalid offset"):
                raise
            raise OffsetAheadError(partition, offset, self.end(partition)) from None

    def _forget(self, consumer: str, partition: Partition) -> None:
        self._ask_binary(requests.DELETE_OFFSET, requests.delete_offset(consumer, self._stream, *partition))

    def _drop_segments(self, partition: Partition, safe: int, oldest: int, max_bytes: int) -> int:
        """Drop segments that end before `safe`, one by one, while they are old or there are too many."""
        begin = start = self.start(partition)
        while True:
            state = self._state(partition)
            bound = safe
            if state.size <= max_bytes:
                young = self._poll(partition, PollingStrategy.Timestamp(max(oldest, 0)), 1)
                bound = min(safe, young[0].offset()) if young else safe
            # A full segment has this many bytes; fewer before `bound` are none that could go.
            if (bound - start) * state.size < self._segment_bytes[partition.topic] * state.messages_count:
                return start - begin
            self._store(RETENTION, partition, bound)
            request = requests.delete_segments(self._stream, *partition, 1)
            self._ask_binary(requests.DELETE_SEGMENTS, request)
            moved = self._start_after(partition, start)
            if moved > bound:
                raise SpineError(
                    f"Iggy dropped {self._stream}/{partition.topic}/{partition.number} up to {moved}, though "
                    f"{bound} is still needed: use version 0.9 of it"
                )
            if moved == start:
                return start - begin
            start = moved

    def _start_after(self, partition: Partition, start: int) -> int:
        """Return where a partition starts once it doesn't at `start` any more, which takes milliseconds."""
        deadline = time.monotonic() + _DELETED_WITHIN_SECONDS
        while (found := self.start(partition)) == start and time.monotonic() < deadline:
            time.sleep(0.005)
        return found

    def _ask_binary(self, code: int, request: bytes) -> bytes:
        return self._connection.ask(lambda client: client.send_binary_request(code, request))

    def _check(self, partition: Partition) -> None:
        if partition not in self._all:
            raise SpineError(f"{partition.topic[:40]!r}/{partition.number} is no partition of this log")


def _end(state: apache_iggy.Partition) -> int:
    """Return the next offset: Iggy says 0 of an empty partition and of one with a single message."""
    return state.current_offset + 1 if state.current_offset or state.messages_count else 0


def _consecutive(messages: list[ReceiveMessage], offset: int) -> list[ReceiveMessage]:
    """Return the messages from `offset` on, up to the first one missing."""
    if messages and messages[-1].offset() == offset + len(messages) - 1:
        return messages
    return [message for i, message in enumerate(messages) if message.offset() == offset + i]


def _parts(payloads: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut messages into parts that are sent at once, each of at least one message."""
    first = size = 0
    for i, payload in enumerate(payloads):
        if i > first and (size + len(payload) > _SEND_BYTES or i - first == _SEND_MESSAGES):
            yield payloads[first:i]
            first, size = i, 0
        size += len(payload)
    if first < len(payloads):
        yield payloads[first:]
