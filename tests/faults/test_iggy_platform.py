"""The workers over Iggy while its server is killed, restarted and paused: the tables are the market."""

import random
import time
from pathlib import Path

import pytest
from free_ports import free_ports
from running_workers import STAGES, Log, Workers, wait_until, workers
from truth import check_tables

from benchmarks.iggy_server import IggyServer, iggy_values
from lakehouse.market.time import now_us
from streaming.exchanges.simulated.market import SimulatedMarket

PRODUCTS = ("BTC-USD", "ETH-USD", "LINK-USD")
RATE = 800.0


def is_working_again(platform: Workers, worker: str) -> bool:
    """Tell whether it works; one that finds no server as it starts ends, and is started again."""
    platform.revive(worker)
    return platform.is_working(worker)


@pytest.mark.timeout(1800)
def test_faults_of_iggy_lose_and_double_nothing_in_the_tables(
    iggy_binary: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    full = request.config.getoption("--full")
    seed = request.config.getoption("--seed")
    chances = random.Random(seed)
    websocket_port, rest_port = free_ports(2)
    market = SimulatedMarket(seed, PRODUCTS, RATE)
    faults = ["kill", "kill", "stop", "pause", "feed", *STAGES] * (6 if full else 1)
    chances.shuffle(faults)
    with IggyServer(iggy_binary, tmp_path / "iggy") as server:
        chosen = iggy_values(server.address, iggy_timeout_seconds=2.0)
        del chosen["home"]
        with workers(
            tmp_path,
            feed="simulated",
            products=",".join(PRODUCTS),
            simulated_seed=seed,
            simulated_rate=RATE,
            simulated_rest_rate=2_000,
            simulated_websocket_port=websocket_port,
            simulated_rest_port=rest_port,
            commit_interval_ms=100,
            **chosen,
        ) as platform:
            for name in ("exchange", "feed", *STAGES):
                platform.start(name)
            platform.wait_until(
                lambda: all(platform.is_working(name) for name in ("feed", *STAGES)), 60, "all work"
            )
            for fault in faults:
                time.sleep(chances.uniform(0.2, 2.0))
                platform.check_alive()
                match fault:
                    case "kill" | "stop":
                        server.kill() if fault == "kill" else server.stop()
                        time.sleep(chances.uniform(0, 2.0))
                        server.start()
                    case "pause":
                        server.pause()
                        time.sleep(chances.uniform(1.0, 6.0))
                        server.resume()
                    case worker:
                        platform.kill(worker)
                        platform.start(worker)
                        wait_until(
                            lambda worker=worker: is_working_again(platform, worker), 60, f"{worker} works"
                        )
            now = now_us()
            last_ids = {product: market[product].last_id_before(now) for product in PRODUCTS}
            log = Log(platform.open_spine())
            platform.wait_until(lambda: log.covers(last_ids), 100, "all trades")
            log.close()
            platform.stop_when_all_is_committed()
            trades = check_tables(platform.home, platform.open_spine, market)
            platform.stop("exchange")
            print(f"{trades:,} trades; {len(faults)} faults")
