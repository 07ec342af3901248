"""`lakehouse up` with the cluster profile, in a folder and on ports of its own, while it is measured."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from pydantic import SecretStr

from benchmarks.free_ports import free_ports
from benchmarks.own_cluster import open_folder, settings_for
from lakehouse.home import home_of
from lakehouse.settings import Settings
from streaming.cluster.definition import load
from streaming.workers.supervisor import supervised

START_SECONDS = 180.0
MIB = 2**20


@contextmanager
def cluster_up(workers: int, **overrides: object) -> Iterator[tuple[Settings, psutil.Process]]:
    """Run the platform without Dagster for the block; give its settings and the process that began it all.

    Args:
        workers: how many have to run before the block begins.
        overrides: settings that differ from the default ones.
    """
    with open_folder() as folder:
        websocket, rest = free_ports(2)
        ports = {"simulated_websocket_port": websocket, "simulated_rest_port": rest, "metrics_port": 0}
        settings = settings_for(folder, load(), **ports, feed="simulated", backfill_days=0, **overrides)
        command = [str(Path(sys.executable).with_name("lakehouse")), "up", "--no-dagster"]
        up = subprocess.Popen(command, env=os.environ | variables(settings), stdout=sys.stderr)
        try:
            _wait(up, settings, workers)
            yield settings, psutil.Process(up.pid)
            if up.poll() is not None:
                raise RuntimeError(f"lakehouse up ended with {up.returncode}; what it said is above")
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait()


def variables(settings: Settings) -> dict[str, str]:
    """Return the environment that makes a process have these settings."""
    chosen = settings.model_dump(exclude_defaults=True, exclude_none=True)
    return {
        f"LAKEHOUSE_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in chosen.items()
    }


def _wait(up: subprocess.Popen[bytes], settings: Settings, workers: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        home = home_of(settings)
        states = supervised(home) if home.folder.exists() else {}
        if len(states) >= workers and set(states.values()) == {"RUNNING"}:
            return
        if up.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"lakehouse up doesn't come up: {states}; what it said is above")
        time.sleep(0.5)
