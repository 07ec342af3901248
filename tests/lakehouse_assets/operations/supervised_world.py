"""Supervised processes that do nothing, under a real supervisord."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from lakehouse.home import Home
from lakehouse.settings import load_settings
from streaming.workers.supervisor import Program, Supervised, processes, running

_SLEEPS = (sys.executable, "-c", "import time; time.sleep(600)")


class Workers:
    """The workers of a home."""

    def __init__(self, home: Home) -> None:
        self.home = home

    @classmethod
    @contextmanager
    def running(cls, home: Home) -> Iterator[Self]:
        """Run two of them for the block."""
        chosen = [Program("hot", _SLEEPS, 2), Program("archive", _SLEEPS, 2)]
        with running(chosen, load_settings(home=home.root), home):
            workers = cls(home)
            workers.wait(lambda now: {"hot", "archive"} == {name for name, one in now.items() if one.pid})
            yield workers
            # supervisord takes its longest to stop what it has just started.
            workers.wait(lambda now: all(one.state != "STARTING" for one in now.values()))

    def wait(self, holds: Callable[[dict[str, Supervised]], bool], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not holds(processes(self.home)):
            assert time.monotonic() < deadline, processes(self.home)
            time.sleep(0.05)

    def kill(self, name: str) -> None:
        """Kill a worker as the kernel would, and wait until supervisord knows."""
        pid = processes(self.home)[name].pid
        os.kill(pid, signal.SIGKILL)
        self.wait(lambda now: now[name].pid != pid)

    def keep_down(self, name: str) -> None:
        """Kill a worker whenever it is started, until supervisord pauses for seconds."""
        for _ in range(3):
            self.wait(lambda now: now[name].pid > 0)
            self.kill(name)
        self.wait(lambda now: now[name].state == "BACKOFF")
