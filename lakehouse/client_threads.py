"""Ending a process that used a client with threads of its own, as those of Fluss and Iggy have.

Such a thread takes Python's lock once more after the answer that it brought, to let go of what it holds. If
the interpreter is being taken down by then, it ends the thread where it stands, and the client, which is
written in Rust, aborts the process: the exit code is lost (SIGABRT, in four of five processes that end right
after a refused connection).
"""

import atexit
import time
from functools import cache
from typing import Final

_LAST_WORDS_SECONDS: Final = 0.25
"""Far longer than a thread needs that has Python's lock for the asking."""


@cache
def let_go_at_exit() -> None:
    """Give the client's threads a moment at the end of this process, however it ends but by a signal."""
    atexit.register(time.sleep, _LAST_WORDS_SECONDS)
