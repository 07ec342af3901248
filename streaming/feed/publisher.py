"""Publishing exactly once: what the log took before it failed isn't handed to it again."""

import random
import time
from collections.abc import Mapping, Sequence

import structlog

from streaming.feed.metrics import PUBLISH_SECONDS
from streaming.spine.contract import OffsetAheadError, Partition, Spine, SpineError, SpineUnavailableError
from streaming.spine.topics import FED, SESSIONS

LONGEST_WAIT = 10.0

log = structlog.get_logger()


class Publisher:
    """The only publisher of a spine; knows where each partition ends."""

    def __init__(self, spine: Spine) -> None:
        self._spine = spine
        self._ends = spine.settled_ends(
            Partition(topic, number)
            for topic in FED
            for number in range(1 if topic == SESSIONS else spine.partitions)
        )

    def ends(self, *, after: Mapping[Partition, Sequence[bytes]]) -> dict[Partition, int]:
        """Return where each partition will end once `after` is published."""
        return {partition: end + len(after.get(partition, ())) for partition, end in self._ends.items()}

    def publish(self, batch: Mapping[Partition, Sequence[bytes]]) -> None:
        """Make messages durable; blocks, and keeps trying while the log can't be reached.

        After a failure nothing is handed to the log again before it has said what it took: a message whose
        acknowledgement didn't come may be in it, or on its way.

        Raises:
            OffsetAheadError: the log lost messages.
            SpineError: the log is damaged, or there is another publisher.
        """
        left = dict(batch)
        unknown = False
        attempt = 0
        while left:
            try:
                if unknown:
                    left = self._not_taken(left)
                    unknown = False
                    continue
                with PUBLISH_SECONDS.time():
                    first_offsets = self._spine.publish(left)
            except SpineUnavailableError as error:
                unknown = True
                attempt += 1
                wait = random.uniform(0.5, 1.0) * min(LONGEST_WAIT, 0.1 * 2**attempt)
                log.warning("the log took no messages", error=str(error), seconds=round(wait, 1))
                time.sleep(wait)
            else:
                self._check(first_offsets)
                for partition, messages in left.items():
                    self._ends[partition] += len(messages)
                return

    def _check(self, offsets: Mapping[Partition, int]) -> None:
        """Compare where messages were appended with where they should have been."""
        for partition, offset in offsets.items():
            if offset < self._ends[partition]:
                raise OffsetAheadError(partition, self._ends[partition], offset)
            if offset > self._ends[partition]:
                raise self._not_alone(partition)

    def _not_taken(self, batch: Mapping[Partition, Sequence[bytes]]) -> dict[Partition, Sequence[bytes]]:
        """Return the part of a failed batch that the log doesn't hold."""
        ends = self._spine.settled_ends(batch)
        for partition, end in ends.items():
            if end < self._ends[partition]:
                raise OffsetAheadError(partition, self._ends[partition], end)
            if end > self._ends[partition] + len(batch[partition]):
                raise self._not_alone(partition)
        left = {
            partition: messages[ends[partition] - self._ends[partition] :]
            for partition, messages in batch.items()
        }
        self._ends |= ends
        return {partition: messages for partition, messages in left.items() if messages}

    def _not_alone(self, partition: Partition) -> SpineError:
        return SpineError(
            f"somebody else published to {partition.topic}/{partition.number} after offset "
            f"{self._ends[partition]}: run one feed on a log; started again, this one takes in what it holds"
        )
