"""One store pauses while data flows: nothing is lost or doubled, and the others don't wait for it."""

import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from free_ports import free_ports
from running_workers import STAGES, Log, Workers, workers
from truth import check_tables

from lakehouse.market.time import now_us
from lakehouse.stores.lock import held
from streaming.exchanges.simulated.market import SimulatedMarket

PRODUCTS = ("BTC-USD", "ETH-USD", "LINK-USD")
RATE = 800.0


@contextmanager
def table_locked(platform: Workers, name: str) -> Iterator[None]:
    """Hold a table's lock, as a seal does."""
    with held(platform.home.locks, name):
        yield


@contextmanager
def database_locked(path: Path) -> Iterator[None]:
    """Keep every writer out of an SQLite file."""
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@contextmanager
def worker_stopped(platform: Workers, name: str) -> Iterator[None]:
    """Freeze a worker, as a machine that swaps does."""
    process = platform.running[name]
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def committed(platform: Workers, stage: str) -> float:
    return platform.metric(stage, "lakehouse_engine_messages_total") or 0.0


def pause(platform: Workers, kind: str, seconds: float) -> None:
    """Let a store pause, and look at who waits and who doesn't."""
    match kind:
        case "iceberg-trades" | "paimon-candles_1m":
            stage = "archive" if kind.startswith("iceberg") else "candles"
            with table_locked(platform, kind):
                time.sleep(0.5)  # what was being read is committed
                before = {name: committed(platform, name) for name in STAGES}
                time.sleep(seconds)
                after = {name: committed(platform, name) for name in STAGES}
            assert after[stage] == before[stage]
            others = set(STAGES) - {stage}
            assert all(after[name] > before[name] for name in others), (kind, before, after)
        case "hot.db":
            with database_locked(platform.home.hot_store):
                time.sleep(seconds)
        case "spine.db":
            with database_locked(platform.home.spine):
                time.sleep(seconds)
        case _:
            with worker_stopped(platform, kind):
                time.sleep(seconds)


@pytest.mark.timeout(1800)
def test_pauses_of_one_store_lose_nothing_anywhere(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    full = request.config.getoption("--full")
    seed = request.config.getoption("--seed")
    chances = random.Random(seed)
    websocket_port, rest_port = free_ports(2)
    market = SimulatedMarket(seed, PRODUCTS, RATE)
    with workers(
        tmp_path,
        feed="simulated",
        products=",".join(PRODUCTS),
        simulated_seed=seed,
        simulated_rate=RATE,
        simulated_websocket_port=websocket_port,
        simulated_rest_port=rest_port,
        commit_interval_ms=200,
    ) as platform:
        for name in ("exchange", "feed", *STAGES):
            platform.start(name)
        platform.wait_until(
            lambda: all(committed(platform, name) > 0 for name in STAGES), 60, "data in every store"
        )
        kinds = ["iceberg-trades", "paimon-candles_1m", "hot.db", "spine.db", "feed", *STAGES]
        pauses = [(kind, chances.uniform(1, 12)) for kind in kinds * 4] if full else []
        chances.shuffle(pauses)
        for kind, seconds in pauses or [(kind, 1.0) for kind in kinds[:4]]:
            pause(platform, kind, seconds)
            time.sleep(0.5)
        log = Log(platform.open_spine())
        now = now_us()
        last_ids = {product: market[product].last_id_before(now) for product in PRODUCTS}
        platform.wait_until(lambda: log.covers(last_ids), 60, "all trades")
        log.close()
        platform.stop_when_all_is_committed()
        trades = check_tables(platform.home, platform.open_spine, market)
        print(f"{trades:,} trades; {len(pauses)} pauses of {sum(s for _, s in pauses):.0f} s")
