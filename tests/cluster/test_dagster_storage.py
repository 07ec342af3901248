"""Dagster as the containers configure it, on a real PostgreSQL: what ran is still known afterwards."""

from pathlib import Path

import dagster as dg
import pytest
from running_cluster import RunningCluster

from streaming.cluster import postgres
from streaming.cluster.definition import DOCKER


@dg.op
def one_step() -> None:
    """What a run needs to be one."""


@dg.job
def job_of_one_step() -> None:
    one_step()


def test_runs_are_kept_in_postgresql(
    cluster: RunningCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (DOCKER / "dagster" / "dagster.yaml").read_text()
    (tmp_path / "dagster.yaml").write_text(text.replace("/data/dagster", str(tmp_path)))
    address = postgres.address(cluster.cluster.place, "dagster").get_secret_value()
    # With the driver's name, as in compose.yaml: without it SQLAlchemy takes one that isn't installed.
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", address.replace("postgresql:", "postgresql+psycopg2:"))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        done = job_of_one_step.execute_in_process(instance=instance)
        assert done.success
    with dg.DagsterInstance.from_config(str(tmp_path)) as later:
        assert [run.run_id for run in later.get_runs()] == [done.run_id]
        assert later.get_run_stats(done.run_id).steps_succeeded == 1
