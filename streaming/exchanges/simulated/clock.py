"""The exchange's time: real, accelerated, or from a fixed start to a fixed end."""

import time

from lakehouse.market.time import SECOND_US, now_us


class ExchangeClock:
    """Where the exchange's time should be by now.

    Args:
        speed: exchange seconds that pass in a second.
        start_us: the exchange's time at the clock's start; None starts at this machine's time.

    With speed 1 and no start it is this machine's clock, corrections included.
    """

    def __init__(self, speed: float = 1.0, start_us: int | None = None) -> None:
        if speed <= 0:
            raise ValueError(f"a clock's speed is above 0, not {speed}")
        self.is_real = speed == 1.0 and start_us is None
        self.start_us = now_us() if start_us is None else start_us
        self._speed = speed
        self._started = time.monotonic()

    def restart(self) -> None:
        """Let `start_us` be now, where the start is fixed."""
        self._started = time.monotonic()
        if self.is_real:
            self.start_us = now_us()

    def now(self) -> int:
        """Return the time in µs UTC."""
        if self.is_real:
            return now_us()
        return self.start_us + int((time.monotonic() - self._started) * self._speed * SECOND_US)
