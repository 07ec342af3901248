"""A running `lakehouse up`, as a person started it, and what to ask it."""

import csv
import io
import json
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from typed_commands import LAKEHOUSE, environment, output_of, run

from lakehouse.home import home_of
from lakehouse.settings import Settings, load_settings
from lakehouse.stores.sql import connect
from streaming.workers.status import Report, report


class Platform:
    """A running `lakehouse up`, without Dagster unless asked for, and what to ask it."""

    def __init__(self, folder: Path, settings: dict[str, str], *, dagster: bool = False) -> None:
        self.folder = folder
        self.settings = settings
        self._command = [LAKEHOUSE, "up", *([] if dagster else ["--no-dagster"])]
        self.process = self.start()

    def start(self) -> "subprocess.Popen[str]":
        self.process = subprocess.Popen(
            self._command,
            env=environment(self.folder, **self.settings),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self.process

    def stop(self) -> str:
        self.process.send_signal(signal.SIGINT)
        output, _ = self.process.communicate(timeout=90)
        return output

    def pid_of(self, worker: str) -> int:
        endpoint = json.loads((self.folder / "data" / "run" / f"{worker}.json").read_text())
        return int(endpoint["pid"])

    def ask(self, statement: str) -> list[dict[str, Any]]:
        text = output_of(self.folder, "sql", "--format", "csv", statement, **self.settings)
        return list(csv.DictReader(io.StringIO(text)))

    def count(self, statement: str) -> int:
        """Answer a question for one number at once, without a process of its own: for who asks often."""
        settings = self._settings()
        with closing(connect(home_of(settings))) as connection:
            (found,) = connection.execute(statement).fetchone() or (0,)
        return int(found or 0)

    def report(self) -> Report:
        """Return what `status` would show, without a process of its own, as `count`."""
        settings = self._settings()
        return report(settings, home_of(settings))

    def says_well(self) -> bool:
        """Whether `status` finds nothing wrong. It is asked once nothing is: a process takes a core."""
        return not self.report().wrong and self.status().returncode == 0

    def _settings(self) -> Settings:
        return load_settings(home=self.folder / "data", **self.settings)

    def status(self) -> "subprocess.CompletedProcess[str]":
        return run(self.folder, "status", **self.settings)


def eventually(holds: Callable[[], bool], seconds: float = 60, *, pause: float = 0.2) -> None:
    """Wait until something is so. Where asking takes a process, a long pause leaves its core to others."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(pause)
