"""Kill -9 and hung servers under load: the bridge catches up by itself, and nothing is missing."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from bridge_process import Market, bridge_process
from bridge_world import TABLETS
from running_cluster import RunningCluster

RATE = 5_000
CATCH_UP_SECONDS = 60


@pytest.mark.full
@pytest.mark.timeout(600)
def test_bridge_and_leader_killed_under_load(
    cluster: RunningCluster, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    chances = random.Random(request.config.getoption("--seed"))
    with bridge_process(cluster, tmp_path) as bridge, Market(bridge.home, RATE) as market:
        bridge.start()
        bridge.pushed(market, RATE, CATCH_UP_SECONDS)
        took = {}
        tablet = chances.choice(TABLETS)  # it leads buckets of every table: there are three servers
        for victims in ("bridge", tablet, f"bridge and {tablet}"):
            time.sleep(chances.uniform(0.5, 2.0))
            if "bridge" in victims:
                bridge.kill()
            if tablet in victims:
                cluster.kill(tablet)
            if "bridge" in victims:
                time.sleep(chances.uniform(0.0, 1.0))
                bridge.start()
            took[victims] = bridge.pushed(market, market.published + RATE, CATCH_UP_SECONDS)
            cluster.start(tablet)
        market.stop()
        bridge.caught_up(market, CATCH_UP_SECONDS)
        bridge.stop()
        repeated = bridge.check()
    print(f"{market.published:,} trades, {repeated:,} rows repeated, caught up after {took}")


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_tablet_server_that_hangs(cluster: RunningCluster, tmp_path: Path) -> None:
    with bridge_process(cluster, tmp_path) as bridge, Market(bridge.home, RATE) as market:
        bridge.start()
        bridge.pushed(market, RATE, CATCH_UP_SECONDS)
        hung = cluster.pid(TABLETS[1])
        os.kill(hung, signal.SIGSTOP)
        try:
            took = bridge.pushed(market, market.published + RATE, CATCH_UP_SECONDS)
        finally:
            os.kill(hung, signal.SIGCONT)
        time.sleep(2)
        bridge.caught_up(market, CATCH_UP_SECONDS)
        bridge.stop()
        market.stop()
        bridge.start()
        bridge.caught_up(market, CATCH_UP_SECONDS)
        bridge.check()
    print(f"caught up after {took:.1f} s without the server that hangs")


@pytest.mark.full
@pytest.mark.timeout(600)
def test_all_tablet_servers_killed_at_once(cluster: RunningCluster, tmp_path: Path) -> None:
    with bridge_process(cluster, tmp_path) as bridge, Market(bridge.home, RATE) as market:
        bridge.start()
        bridge.pushed(market, RATE, CATCH_UP_SECONDS)
        for tablet in TABLETS:
            cluster.kill(tablet)
        cluster.start(*TABLETS)
        took = bridge.pushed(market, market.published + RATE, CATCH_UP_SECONDS)
        market.stop()
        bridge.caught_up(market, CATCH_UP_SECONDS)
        bridge.stop()
        repeated = bridge.check()
    print(f"{market.published:,} trades, {repeated:,} rows repeated, caught up after {took:.1f} s")


def test_nobody_at_the_address_is_one_sentence_in_the_log(cluster: RunningCluster, tmp_path: Path) -> None:
    with bridge_process(cluster, tmp_path) as bridge:
        bridge.environment["LAKEHOUSE_FLUSS_ADDRESS"] = "127.0.0.1:1"
        bridge.start()
        deadline = time.monotonic() + 30
        while "LAKEHOUSE_FLUSS_ADDRESS" not in bridge.log():
            assert time.monotonic() < deadline, bridge.log()
            time.sleep(0.2)
        bridge.stop()
