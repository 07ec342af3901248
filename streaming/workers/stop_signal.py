"""How a process is told to stop: SIGTERM and Ctrl-C, waited for without a lock."""

import os
import select
import signal
from types import FrameType


class StopSignal:
    """Set once, by a signal or by `set`; only the main thread waits for it.

    A `threading.Event` would not do: a handler runs in the main thread between any two of its instructions,
    also while it holds the event's lock in `wait`, and `set` would wait for that lock for ever.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._wakes, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    def listen(self) -> None:
        """Be set by SIGTERM and SIGINT from now on."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.set()

    def set(self) -> None:
        """Tell to stop; may be called from a handler and from any thread."""
        if not self._is_set:
            self._is_set = True
            os.write(self._wake, b".")

    def is_set(self) -> bool:
        """Tell whether it was set."""
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Wait until it is set, but no longer than `seconds`; return whether it is."""
        if not self._is_set:
            select.select([self._wakes], [], [], seconds)
        return self._is_set

    def __del__(self) -> None:
        os.close(self._wakes)
        os.close(self._wake)
