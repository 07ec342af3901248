"""`lakehouse up` with the profile `cluster`: servers, workers and the job start, are watched, and stop."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from free_ports import free_ports
from running_cluster import settings_for
from running_up import Platform, eventually
from typed_commands import run

from benchmarks.own_cluster import open_folder
from streaming.cluster.definition import load

pytestmark = pytest.mark.timeout(600)

LINE = re.compile(
    r"feed \d+\.\d s old → log \d+ waiting → Fluss [\d,]+ behind → Flink [\d,]+ rows behind → "
    r"tables \d+\.\d s old"
)
CHOSEN = ("fluss_address", "flink_url", "flink_gateway_url", "iggy_address", "cluster_ports", "cluster_jars")


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as made:
        yield made


@pytest.fixture
def platform(folder: Path) -> Iterator[Platform]:
    chosen = settings_for(folder / "data", load()).model_dump(include=set(CHOSEN))
    websocket_port, rest_port = free_ports(2)
    running = Platform(
        folder,
        {name: str(value) for name, value in chosen.items()}
        | {
            "profile": "cluster",
            "simulated_websocket_port": str(websocket_port),
            "simulated_rest_port": str(rest_port),
            "simulated_rate": "100",
            "metrics_port": "0",
            "backfill_days": "0",
            "flink_checkpoint_seconds": "2",
        },
    )
    yield running
    if running.process.poll() is None:
        running.stop()


def test_one_command_starts_everything_and_ctrl_c_stops_it(platform: Platform) -> None:
    eventually(lambda: is_well(platform) or platform.process.poll() is not None, 300, pause=1)
    assert platform.process.poll() is None, platform.process.communicate()[0]

    killed = platform.pid_of("bridge")
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: platform.pid_of("bridge") != killed)
    eventually(lambda: is_well(platform), 120, pause=1)

    (trades,) = platform.ask("SELECT count(*) AS n, count(DISTINCT (product, trade_id)) AS ids FROM trades")
    assert int(trades["n"]) > 0
    assert trades["n"] == trades["ids"]
    assert len(platform.ask("SELECT * FROM latest WHERE price > 0")) == 6

    output = platform.stop()
    assert platform.process.returncode == 0, output
    assert "No Iggy server: the log is the embedded one" in output
    assert f"Flink                {platform.settings['flink_url']}" in output
    assert "Stopped. Starting again goes on from here." in output
    assert not [one for one in processes(platform.folder) if one.pid != os.getpid()]

    asked = run(platform.folder, "sql", "SELECT count(*) FROM trades", **platform.settings)
    assert asked.returncode == 1
    assert "can't be reached: start it (`lakehouse cluster up` starts the native one)" in asked.stderr
    assert len(asked.stderr.strip().splitlines()) == 1


def is_well(platform: Platform) -> bool:
    """Whether `lakehouse status` finds nothing wrong and knows every station.

    It is asked once it will say so: a process takes a core from those that start.
    """
    found = platform.report()
    if found.wrong or not any(LINE.search(shown) for shown in found.shown if isinstance(shown, str)):
        return False
    status = platform.status()
    return status.returncode == 0 and "All is well." in status.stdout and bool(LINE.search(status.stdout))


def processes(folder: Path) -> list[psutil.Process]:
    """Every process that has to do with the folder."""
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if any(str(folder) in part for part in one.info["cmdline"] or ())
    ]
