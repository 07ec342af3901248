"""kill -9 along the market's whole path, one and two processes at a time: the tables are exact, and soon."""

import itertools
import random
import time
from pathlib import Path

import pytest
from busy_market import BusyMarket
from market_path import market_path
from running_cluster import RunningCluster

RATE = 5_000
CATCH_UP_SECONDS = 60.0
FIRST_SECONDS = 120.0
"""Until the job runs and the first trades are in the tables."""

VICTIMS = (
    *("bridge", "fluss-tablet-1", "flink-taskmanager", "flink-jobmanager", "zookeeper", "flink-gateway"),
    "postgres",
)
"""Each tablet server leads a part of the buckets."""

ROUNDS = 20


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("at_once", [pytest.param(1, marks=pytest.mark.full), 2])
def test_killed_under_load_the_tables_are_exact_and_catch_up(
    at_once: int,
    cluster: RunningCluster,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seed = request.config.getoption("--seed")
    chances = random.Random(seed)
    rounds = list(itertools.combinations(VICTIMS, at_once))
    if at_once == 2:
        rounds = chances.sample(rounds, ROUNDS - len(VICTIMS))
    if not request.config.getoption("--full"):
        rounds = [("bridge", "flink-taskmanager")]
    took: dict[tuple[str, ...], float] = {}
    with (
        market_path(cluster, tmp_path, monkeypatch) as path,
        BusyMarket(path.home, RATE, seed) as market,
    ):
        path.wait_for(market.published(), FIRST_SECONDS)
        for victims in rounds:
            time.sleep(chances.uniform(0.5, 3.0))
            path.kill(*victims)
            time.sleep(1)
            took[victims] = path.wait_for(market.published(), CATCH_UP_SECONDS)
            print(f"{took[victims]:5.1f} s after {' and '.join(victims)}")
            cluster.start()
        path.wait_for(market.stop(), CATCH_UP_SECONDS)
        repushed = path.metric("bridge", "lakehouse_bridge_repushed_messages_total")
        rows = path.check()
    slowest = max(took, key=lambda victims: took[victims])
    counts = ", ".join(f"{count:,} of {table}" for table, count in rows.items())
    print(
        f"{len(rounds)} rounds; {counts}; {repushed:,.0f} pushed again by comparison; slowest "
        f"{took[slowest]:.1f} s after {' and '.join(slowest)}"
    )
