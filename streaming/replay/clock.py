"""The exchange's time as it passes in a replay."""

import time
from collections.abc import Callable

from lakehouse.market.time import SECOND_US


class ExchangeClock:
    """Runs from an event time on, at a multiple of our time, and can be held.

    When an event is due follows from the start alone, so waits that took too long don't add up: after a
    burst, a slow disk or a busy machine what is overdue comes at once, and what follows comes in time.

    Args:
        speed: seconds of the exchange's time in one of ours.
        monotonic: our time, in seconds.
    """

    def __init__(self, speed: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._speed = speed
        self._monotonic = monotonic
        self._held_us: int | None = 0
        self._start_us = 0
        self._started = 0.0

    def start(self, event_us: int) -> None:
        """Run on from an event time, µs UTC."""
        self._start_us, self._started = event_us, self._monotonic()
        self._held_us = None

    def hold(self) -> None:
        """Stand still."""
        if self._held_us is None:
            self._held_us = self.now_us()

    def go(self) -> None:
        """Run on from where it was held."""
        if self._held_us is not None:
            self.start(self._held_us)

    def now_us(self) -> int:
        """Return the exchange's time, µs UTC."""
        if self._held_us is not None:
            return self._held_us
        passed = (self._monotonic() - self._started) * self._speed
        return self._start_us + int(passed * SECOND_US)

    def seconds_until(self, event_us: int) -> float:
        """Return in how many seconds of ours an event is due; 0 where it is."""
        return max(event_us - self.now_us(), 0) / (self._speed * SECOND_US)
