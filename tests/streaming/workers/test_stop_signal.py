import random
import signal
import time

import pytest

from streaming.workers.stop_signal import StopSignal


@pytest.mark.timeout(30)
def test_a_signal_in_the_middle_of_a_wait_ends_it() -> None:
    """The handler comes between any two instructions; with a threading.Event this hangs within seconds."""
    before = signal.getsignal(signal.SIGALRM)
    chance = random.Random(7)
    try:
        for _ in range(5_000):
            stop = StopSignal()
            signal.signal(signal.SIGALRM, lambda _number, _frame, stop=stop: stop.set())
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00005, 0.0005))
            while not stop.wait(0.0001):
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_long_wait_ends_with_the_signal() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            stop = StopSignal()
            stop.listen()
            assert not stop.wait(0.01)
            started = time.monotonic()
            signal.raise_signal(number)
            signal.raise_signal(number)
            assert stop.wait(20)
            assert stop.is_set()
            assert time.monotonic() - started < 10
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
