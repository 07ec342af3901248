"""Publishing exactly once: what the log took before it failed isn't handed to it again."""

import random
import time
from collections.abc import Mapping, Sequence

import structlog

from streaming.feed.metrics import PUBLISH_SECONDS
from streaming.spine.contract import Partition, Spine, SpineUnavailableError
from streaming.spine.topics import SESSIONS, TOPICS

LONGEST_WAIT = 10.0

log = structlog.get_logger()


class Publisher:
    """The only publisher of a spine; knows where each partition ends."""

    def __init__(self, spine: Spine) -> None:
        self._spine = spine
        self._ends = {
            Partition(topic, number): spine.end(Partition(topic, number))
            for topic in TOPICS
            for number in range(1 if topic == SESSIONS else spine.partitions)
        }

    def ends(self, *, after: Mapping[Partition, Sequence[bytes]]) -> dict[Partition, int]:
        """Return where each partition will end once `after` is published."""
        return {partition: end + len(after.get(partition, ())) for partition, end in self._ends.items()}

    def publish(self, batch: Mapping[Partition, Sequence[bytes]]) -> None:
        """Make messages durable; blocks, and keeps trying while the log can't be reached."""
        left = dict(batch)
        attempt = 0
        while left:
            try:
                with PUBLISH_SECONDS.time():
                    self._spine.publish(left)
            except SpineUnavailableError as error:
                attempt += 1
                wait = random.uniform(0.5, 1.0) * min(LONGEST_WAIT, 0.1 * 2**attempt)
                log.warning("the log took no messages", error=str(error), seconds=round(wait, 1))
                time.sleep(wait)
                left = self._not_taken(left)
            else:
                for partition, messages in left.items():
                    self._ends[partition] += len(messages)
                return

    def _not_taken(self, batch: Mapping[Partition, Sequence[bytes]]) -> dict[Partition, Sequence[bytes]]:
        """Return the part of a failed batch that the log doesn't hold."""
        left: dict[Partition, Sequence[bytes]] = {}
        for partition, messages in batch.items():
            try:
                taken = self._spine.end(partition) - self._ends[partition]
            except SpineUnavailableError:
                return dict(batch)  # still out of reach; nothing is known, and nothing is assumed
            self._ends[partition] += taken
            if taken < len(messages):
                left[partition] = messages[taken:]
        return left
