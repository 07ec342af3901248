"""kill -9 of the bridge and of Fluss's processes, one and two at a time: nothing missing, soon caught up."""

import itertools
import random
import time
from pathlib import Path

import pytest
from bridge_process import Market, bridge_process
from bridge_world import TABLETS
from running_cluster import RunningCluster

RATE = 5_000
CATCH_UP_SECONDS = 60

VICTIMS = ("bridge", *TABLETS, "fluss-coordinator", "zookeeper")


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_killed_under_load_it_catches_up_and_nothing_is_missing(
    cluster: RunningCluster, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    chances = random.Random(request.config.getoption("--seed"))
    pairs = list(itertools.combinations(VICTIMS, 2))
    rounds = [(one,) for one in VICTIMS] + chances.sample(pairs, 14)
    took: dict[tuple[str, ...], float] = {}
    with (
        bridge_process(cluster, tmp_path) as bridge,
        Market(bridge.home, RATE) as market,
    ):
        bridge.start()
        bridge.pushed(market, RATE, CATCH_UP_SECONDS)
        for victims in rounds:
            time.sleep(chances.uniform(0.5, 3.0))
            if "bridge" in victims:
                bridge.kill()
            cluster.kill(*(victim for victim in victims if victim != "bridge"))
            if "bridge" in victims:
                time.sleep(chances.uniform(0.0, 1.0))
                bridge.start()
            took[victims] = bridge.pushed(market, market.published + RATE, CATCH_UP_SECONDS)
            cluster.start()
        market.stop()
        bridge.caught_up(market, CATCH_UP_SECONDS)
        bridge.stop()
        repeated = bridge.check()
    slowest = max(took, key=lambda victims: took[victims])
    print(
        f"{market.published:,} trades, {len(rounds)} rounds, {repeated:,} rows repeated, slowest "
        f"{took[slowest]:.1f} s after {' and '.join(slowest)}"
    )
