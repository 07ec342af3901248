"""A streaming job that fails again and again is shown with its root cause, and goes on when that is gone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flink_world import FlinkWorld, flink_world
from log_messages import market
from running_cluster import RunningCluster

from lakehouse.stores.iceberg_catalog import warehouse
from streaming.engines.flink.lag import Lag
from streaming.workers.flink_job import WORKER, Keeper
from streaming.workers.metrics import scrape, serve
from streaming.workers.stations import problems

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def world(cluster: RunningCluster, tmp_path: Path) -> Iterator[FlinkWorld]:
    with flink_world(cluster, tmp_path, metrics_port=0) as made:
        yield made


@pytest.mark.full
def test_a_job_in_circles_is_wrong_with_its_root_cause(world: FlinkWorld) -> None:
    keeper = Keeper(world.flink, world.job(), Lag(world.runner, world.fluss))
    serve(WORKER, world.settings, world.home)

    def wrong() -> list[str]:
        keeper.step()
        return problems({"bridge": None, WORKER: scrape(world.home, WORKER)}, world.settings)

    trades = market(13, 600)
    world.push(trades[:300])
    world.wait(lambda: wrong() == [], "the job doesn't run")
    world.check()

    files = warehouse(world.home) / "trades" / "data"
    aside = files.rename(files.with_name("aside"))
    files.touch()  # no folder: the writer of the archive can't make a file in it
    world.push(trades[200:])
    said: list[str] = []

    def circles() -> bool:
        said[:] = [sentence for sentence in wrong() if "in circles" in sentence]
        return bool(said)

    world.wait(circles, "nobody noticed")
    assert said[0].startswith("the streaming job restarts in circles: ")
    assert str(files) in said[0]

    files.unlink()
    aside.rename(files)
    world.check()
