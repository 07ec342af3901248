"""One writer for a table at a time: an `flock` around each commit."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
