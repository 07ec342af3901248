"""Coinbase's way of limiting requests: so many a second, with a reserve for bursts."""

import time
from collections.abc import Callable


class TokenBucket:
    """Lets through `rate` requests a second, and up to `burst` at once after a pause.

    Args:
        rate: requests a second.
        burst: how many at once.
        clock: seconds, rising.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = burst
        self._at = clock()

    def take(self) -> bool:
        """Take one request's token; False when there is none."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
