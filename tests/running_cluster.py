"""A native cluster for tests: in a folder and on ports of its own, with the jars of the repository."""

import hashlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from benchmarks import own_cluster
from benchmarks.own_cluster import open_folder
from lakehouse.settings import Settings, load_settings
from streaming.cluster import postgres
from streaming.cluster.definition import Definition, MissingProgramError, load
from streaming.cluster.runner import Cluster

JARS = Path(os.environ.get("LAKEHOUSE_CLUSTER_JARS") or Path(__file__).parents[1] / ".cluster-jars")
IGGY = os.environ.get("LAKEHOUSE_TEST_IGGY_BINARY")
"""Both are read when this is imported: a test sees none of a developer's variables."""


def settings_for(home: Path, definition: Definition, **overrides: object) -> Settings:
    """Return settings of a native cluster in `home` on free ports, with the jars of the repository."""
    return own_cluster.settings_for(
        home, definition, **{"cluster_jars": JARS, "iggy_binary": IGGY} | overrides
    )


class RunningCluster:
    """What a test may do with the cluster: look at it, kill its processes, have settings that lead to it."""

    def __init__(self, cluster: Cluster, settings: Settings, cpu_seconds: float, memory_mib: int) -> None:
        self.cluster = cluster
        self.cpu_seconds = cpu_seconds
        """Processor time that its start took."""
        self.memory_mib = memory_mib
        """Memory it took when it was ready."""
        self._settings = settings

    @property
    def processes(self) -> tuple[str, ...]:
        """Names of what runs."""
        return self.cluster.processes

    def settings(self, home: Path, **overrides: object) -> Settings:
        """Return settings that keep data in `home` and lead to this cluster's servers.

        Each home has a database of its own for its Iceberg catalog.
        """
        chosen = self._settings.model_dump(include={"profile", "spine", "cluster_ports", "cluster_jars"})
        addresses = {"fluss_address", "flink_url", "flink_gateway_url", "iggy_address"}
        chosen |= self._settings.model_dump(include=addresses)
        if "iceberg_catalog" not in overrides:
            database = "home_" + hashlib.sha256(str(home.absolute()).encode()).hexdigest()[:12]
            postgres.create_database(self.cluster.place, database)
            chosen["iceberg_catalog"] = postgres.address(self.cluster.place, database)
        return load_settings(**chosen | {"home": home} | overrides)

    def pid(self, name: str) -> int:
        """Return a process's id, 0 while it doesn't run."""
        return self.cluster.pid(name)

    def kill(self, *names: str) -> None:
        """Kill processes with SIGKILL, at once; each comes back by itself."""
        for pid in [self.pid(name) for name in names]:
            os.kill(pid, signal.SIGKILL)

    def stop(self, *names: str) -> None:
        """Stop processes, which stay down until `start`."""
        self.cluster.stop(*names)

    def start(self, *names: str, seconds: float = 60) -> None:
        """Have processes running and ready, those that were killed or stopped as well; all without a name."""
        self.cluster.start(*(names or self.processes))
        self.cluster.wait_ready(*names, seconds=seconds)


@contextmanager
def running_cluster(**overrides: object) -> Iterator[RunningCluster]:
    """Run a cluster for the block; skips the test where Java, Maven or PostgreSQL isn't installed."""
    definition = load()
    with open_folder() as home:
        settings = settings_for(home, definition, **overrides)
        cluster = Cluster(settings, definition)
        try:
            seconds = cluster.up(print)
            cpu_seconds = sum(_cpu_seconds(one.pid) for one in cluster.status())
            memory_mib = sum(one.memory_mib for one in cluster.status())
            print(f"ready after {seconds:.0f} s and {cpu_seconds:.0f} s of processor time, {memory_mib} MiB")
            yield RunningCluster(cluster, settings, cpu_seconds, memory_mib)
        except MissingProgramError as missing:
            pytest.skip(str(missing))
        finally:
            cluster.down()


def _cpu_seconds(pid: int) -> float:
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(time.user + time.system for time in times)
