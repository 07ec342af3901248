"""One writer for a table at a time: an `flock` around each commit."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock


class AlreadyRunningError(Exception):
    """Another process holds a lock that is not waited for."""


@contextmanager
def held(folder: Path, name: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock `name` for the block; the kernel lets go of it when the process dies.

    Args:
        folder: where the lock files lie.
        name: a table's or a worker's; our own, never a name from outside.
        wait: False to fail at once when another process holds it.

    Raises:
        AlreadyRunningError: it is held, and `wait` is False.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise AlreadyRunningError(f"{name} is already running on {folder.parent}") from None
        yield


class TableLocks:
    """The locks of one store's tables, re-entrant within the object.

    Threads of one process exclude each other as well: an `flock` alone belongs to an open file, and a
    thread that already holds it would wait for itself.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self._folder = folder
        self._prefix = prefix
        self._threads: dict[str, RLock] = {}
        self._depth: dict[str, int] = {}
        self._guard = RLock()

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Hold the lock of the table `name` for the block; waits for other threads and processes."""
        with self._guard:
            thread_lock = self._threads.setdefault(name, RLock())
        with thread_lock:
            if self._depth.get(name, 0):
                self._depth[name] += 1
                try:
                    yield
                finally:
                    self._depth[name] -= 1
                return
            with held(self._folder, f"{self._prefix}-{name}"):
                self._depth[name] = 1
                try:
                    yield
                finally:
                    self._depth[name] = 0
