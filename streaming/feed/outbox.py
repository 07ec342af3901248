"""The messages that wait to be published, by partition."""

from collections.abc import Callable

from streaming.spine.contract import Partition, partition_number


class Outbox:
    """Collects messages between two publications, each partition's in order."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._waiting: dict[Partition, list[bytes]] = {}

    def partition(self, topic: str, product: str) -> Partition:
        """Return a product's partition of a topic; messages without a product go to partition 0."""
        return Partition(topic, partition_number(product, self._partitions) if product else 0)

    def sink(self, topic: str, product: str) -> Callable[[bytes], None]:
        """Return what adds a message to a product's partition; good for the outbox's whole life."""
        return self._waiting.setdefault(self.partition(topic, product), []).append

    def take(self) -> dict[Partition, list[bytes]]:
        """Return everything that waits, and forget it."""
        taken = {partition: waiting.copy() for partition, waiting in self._waiting.items() if waiting}
        for partition in taken:
            self._waiting[partition].clear()  # the sinks keep the list
        return taken

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))
