import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from typed_commands import LAKEHOUSE, environment

from lakehouse.home import Home

UP, CTRL_C, CTRL_D = b"\x1b[A", b"\x03", b"\x04"


class Terminal:
    """A person at a terminal."""

    def __init__(self, descriptor: int, pid: int) -> None:
        self._descriptor = descriptor
        self._state = Path(f"/proc/{pid}/stat")
        self.shown = ""

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._descriptor, keys)

    def wait_for(self, text: str) -> str:
        """Return what is shown until `text` is, which then counts as read."""
        until = time.monotonic() + 60
        while text not in self.shown:
            assert time.monotonic() < until, f"{text!r} does not come after {self.shown!r}"
            if select.select([self._descriptor], [], [], 0.2)[0]:
                self.shown += os.read(self._descriptor, 65536).decode()
        before, _, self.shown = self.shown.partition(text)
        return before

    def wait_until_it_waits(self) -> None:
        """Return when the program has handled all keys and waits for the next one."""
        until = time.monotonic() + 60
        while self._state.read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < until, "it doesn't wait for keys"
            time.sleep(0.01)


@contextmanager
def prompt(folder: Path) -> Iterator[Terminal]:
    """Run `lakehouse sql` at a terminal; leave it with Ctrl-D."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [LAKEHOUSE, "sql"],
        env=environment(folder) | {"TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # else Ctrl-C is just a character
    )
    os.close(theirs)
    try:
        terminal = Terminal(ours, process.pid)
        terminal.wait_for("lakehouse> ")
        yield terminal
        terminal.type(CTRL_D)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_prompt_answers_survives_errors_and_remembers_statements(tmp_path: Path) -> None:
    Home(tmp_path / "data", "simulated").create()
    with prompt(tmp_path) as terminal:
        terminal.type(b"select 6 *\n")
        terminal.wait_for("...> ")
        terminal.type(b"7 as answer;\n")
        assert "42" in terminal.wait_for("lakehouse> ")
        terminal.type(b"select nothing from nowhere;\n")
        assert "nowhere does not exist" in terminal.wait_for("lakehouse> ")
        terminal.type(b"select something that is dropped")
        terminal.wait_for("dropped")
        terminal.wait_until_it_waits()  # a Ctrl-C while a key is being handled is lost in Python's readline
        terminal.type(CTRL_C)
        terminal.wait_for("lakehouse> ")
        terminal.type(b"select sum(a.range * b.range) from range(1000000) a, range(1000000) b;\n")
        time.sleep(1)
        terminal.type(CTRL_C)
        terminal.wait_for("lakehouse> ")
        terminal.type(b"select 'the ' || 'last' as word;\n")
        assert "the last" in terminal.wait_for("lakehouse> ")
    with prompt(tmp_path) as terminal:
        terminal.type(UP + b"\n")
        assert "the last" in terminal.wait_for("lakehouse> ")
