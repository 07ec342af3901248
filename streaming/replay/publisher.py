"""Publishing a replay's trades to the topic `replay`, at its speed."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from streaming.replay.archived import Records
from streaming.replay.clock import ExchangeClock
from streaming.spine.contract import Partition, Spine, partition_number
from streaming.spine.topics import REPLAY

AT_ONCE: Final = 50_000
"""Trades that are made durable together at most."""

_LOOK_EVERY_SECONDS: Final = 0.1
"""How long it may take to notice that the replay was paused or stopped."""


class Publisher:
    """Publishes in order; `run` it in a thread of its own, so that no commit delays a trade.

    Args:
        spine: used by nobody else meanwhile.
        records: what to publish, in the exchange's order.
        speed: see `Replay`.
        is_paused: asked all the time.
    """

    def __init__(
        self, spine: Spine, records: Records, speed: float | None, is_paused: Callable[[], bool]
    ) -> None:
        self._spine = spine
        self._records = records
        self._event_us = np.ascontiguousarray(records["event_us"])
        names, codes = np.unique(records["product"], return_inverse=True)
        numbers = [partition_number(name.decode(), spine.partitions) for name in names.tolist()]
        self._partition = np.array(numbers, dtype=np.uint8)[codes]
        self._clock = None if speed is None else ExchangeClock(speed)
        self._is_paused = is_paused
        self.published = 0
        """How many are durable."""
        self.paused = False
        self.stop = threading.Event()

    def run(self) -> None:
        """Publish until everything is, or `stop` is set.

        Raises:
            SpineError: the log did not take them.
        """
        count = len(self._records)
        if self._clock is not None and count:
            self._clock.start(int(self._event_us[0]))
        while self.published < count and not self.stop.is_set():
            self.paused = self._is_paused()
            if self.paused:
                if self._clock is not None:
                    self._clock.hold()
                self.stop.wait(_LOOK_EVERY_SECONDS)
                continue
            if end := self._due():
                self._spine.publish(self._messages(self.published, end))
                self.published = end

    def _due(self) -> int:
        """Return up to where trades are due, 0 where none is; waits for the next one then."""
        most = min(self.published + AT_ONCE, len(self._records))
        if self._clock is None:
            return most
        self._clock.go()
        end = int(np.searchsorted(self._event_us[:most], self._clock.now_us(), side="right"))
        if end > self.published:
            return end
        self.stop.wait(min(self._clock.seconds_until(int(self._event_us[end])), _LOOK_EVERY_SECONDS))
        return 0

    def _messages(self, start: int, end: int) -> Mapping[Partition, Sequence[bytes]]:
        records, partition = self._records[start:end], self._partition[start:end]
        size = records.dtype.itemsize
        messages = {}
        for number in np.unique(partition).tolist():
            joined = records[partition == number].tobytes()
            messages[Partition(REPLAY, number)] = [
                joined[at : at + size] for at in range(0, len(joined), size)
            ]
        return messages

    @property
    def event_us(self) -> int:
        """The event time that the replay has come to, µs UTC; 0 before its first trade."""
        return int(self._event_us[self.published - 1]) if self.published else 0
