"""The one-shot submitter of the containers: has the job run and ends; again it finds the job."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bridge_world import drop
from flink_world import flink_world
from running_cluster import RunningCluster

from lakehouse.stores.fluss_connection import target_of


@pytest.mark.timeout(600)
def test_the_job_is_submitted_once_however_often_it_is_asked_for(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    with flink_world(cluster, tmp_path) as world:
        settings = world.settings
        variables = {
            "LAKEHOUSE_HOME": str(settings.home),
            "LAKEHOUSE_FEED": "simulated",
            "LAKEHOUSE_PROFILE": "cluster",
            "LAKEHOUSE_SPINE": "sqlite",
            "LAKEHOUSE_FLUSS_ADDRESS": settings.fluss_address,
            "LAKEHOUSE_FLINK_URL": settings.flink_url,
            "LAKEHOUSE_FLINK_GATEWAY_URL": settings.flink_gateway_url,
            "LAKEHOUSE_ICEBERG_CATALOG": settings.iceberg_catalog.get_secret_value(),  # type: ignore[union-attr]
        }
        command = [sys.executable, "-m", "streaming.workers.flink_job", "--once"]
        jobs = []
        for _ in range(2):
            done = subprocess.run(
                command, env=os.environ | variables, capture_output=True, text=True, timeout=250
            )
            assert done.returncode == 0, done.stderr[-3000:]
            assert settings.iceberg_catalog.get_secret_value() not in done.stderr  # type: ignore[union-attr]
            jobs.append([job.id for job in world.live()])
        drop(target_of(settings, world.home))
        assert len(jobs[0]) == 1
        assert jobs[1] == jobs[0]
