"""kill -9 at seeded random moments: rows and offsets stay together, nothing is lost or doubled."""

import random
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext

import pytest
from crashing_writer import FRONTIER, write_candles, write_trades

from lakehouse.home import Home
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, TRADES

KILLS = 12


def write_and_kill(
    processes: ForkServerContext,
    write: Callable[[Home, Connection, bool], None],
    home: Home,
    seed: int,
    kills: int,
) -> None:
    """Let the writer run and kill it, again and again, at moments during its first commits."""
    moments = random.Random(seed)
    for kill in range(kills):
        here, there = processes.Pipe()
        writer = processes.Process(target=write, args=(home, there, kill % 2 == 1))
        writer.start()
        for _ in range(moments.randrange(4)):  # commits it may finish, however slow this machine is
            assert here.poll(60)
            here.recv()
        time.sleep(moments.uniform(0.0, 0.05))
        writer.kill()
        writer.join()
        assert writer.exitcode == -9


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--seed"))


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    return 150 if request.config.getoption("--full") else KILLS


def test_killed_appends_lose_and_double_nothing(
    home: Home, processes: ForkServerContext, seed: int, kills: int
) -> None:
    write_and_kill(processes, write_trades, home, seed, kills)
    with IcebergStore.open(home) as store:
        batches = store.offsets(TRADES)[0]
        assert batches > kills // 2
        assert store.counters(TRADES) == {"batches": batches}
        for product in ("BTC-USD", "ETH-USD"):
            rows = store.scan(TRADES, product=product)
            assert sorted(rows["trade_id"].to_pylist()) == list(range(batches))
        store.compact(TRADES, fan_in=2)
        store.expire(TRADES, keep=1, grace=timedelta(0), ladder=())
        store.sweep(TRADES, grace=timedelta(0), pending=timedelta(0))
        left = set(home.iceberg.rglob("trades/data/**/*.parquet"))
        assert {str(path) for path in left} == {file.file_path for file in store.data_files(TRADES)}


def test_killed_upserts_lose_and_double_nothing(
    home: Home, processes: ForkServerContext, seed: int, kills: int
) -> None:
    write_and_kill(processes, write_candles, home, seed + 1, kills)
    with PaimonStore.open(home) as store:
        batches = int(store.properties(CANDLES_1M)[FRONTIER])
        assert batches > kills // 2
        for product in ("BTC-USD", "ETH-USD"):
            rows = store.scan(CANDLES_1M, product=product)
            assert [first // 10 for first in rows["first_trade_id"].to_pylist()] == list(range(batches))
        store.compact(CANDLES_1M, fan_in=2)
        store.expire(CANDLES_1M, keep=1, grace=timedelta(0), ladder=())
        store.sweep(CANDLES_1M, grace=timedelta(0))
        left = list(home.paimon.rglob("data-*.parquet"))
        assert len(left) == sum(stats.files for stats in store.partitions(CANDLES_1M))
