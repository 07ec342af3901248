"""The cluster's processes: all ready in time, back after kill -9, on loopback only."""

import time
from pathlib import Path

import psutil
import pytest
from running_cluster import RunningCluster

from streaming.cluster.definition import load


def test_the_start_keeps_to_its_limits(cluster: RunningCluster) -> None:
    limits = load()
    # What the clock says depends on what else runs here; the work of two processors doesn't.
    assert cluster.cpu_seconds < 2 * limits.ready_seconds
    assert cluster.memory_mib < limits.memory_mib / 2  # it grows as it works


@pytest.mark.timeout(600)
def test_killed_processes_come_back(cluster: RunningCluster) -> None:
    for name in cluster.processes:
        before = cluster.pid(name)
        cluster.kill(name)
        deadline = time.monotonic() + 60
        while cluster.pid(name) in (0, before):
            assert time.monotonic() < deadline, f"{name} did not come back"
            time.sleep(0.1)
    # One that had to reconnect to another may answer a little later than that one does.
    cluster.start()
    assert {one.state for one in cluster.cluster.status()} == {"ready"}


def test_everything_listens_on_loopback_only(cluster: RunningCluster) -> None:
    for name in cluster.processes:
        process = psutil.Process(cluster.pid(name))
        for one in (process, *process.children(recursive=True)):
            for connection in one.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    address = connection.laddr.ip.removeprefix("::ffff:")
                    assert address == "127.0.0.1", f"{name} listens on {connection.laddr}"


def test_settings_lead_each_home_to_a_catalog_of_its_own(cluster: RunningCluster, tmp_path: Path) -> None:
    one, other = cluster.settings(tmp_path / "one"), cluster.settings(tmp_path / "other")
    assert one.iceberg_catalog is not None
    assert one.iceberg_catalog != other.iceberg_catalog
    assert one.iceberg_catalog.get_secret_value() not in repr(one)
    assert one.fluss_address == other.fluss_address
