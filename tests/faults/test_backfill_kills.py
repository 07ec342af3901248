"""kill -9 of a run that fetches a day: it goes on where it was, and nothing is lost or doubled."""

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import pytest

from lakehouse.home import Home
from lakehouse.market.columns import microseconds, scaled_integers
from lakehouse.market.time import DAY_US, HOUR_US, day_start_us
from lakehouse.market.trade import Exchange
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import TRADES
from lakehouse.stores.seals import seals
from lakehouse_assets.partitions import product_day_key
from streaming.exchanges.simulated.server import SimulatedExchange
from streaming.sealing.spool import Spool

PROCESS = Path(__file__).with_name("backfill_process.py")
BTC = "BTC-USD"
DAY = date(2025, 6, 10)
DAY_SECONDS = DAY_US // 1_000_000
ASKED = re.compile(r"fetching what is missing.*?trades=(\d+)")


@contextmanager
def running_exchange(trades: int, requests_per_second: float) -> Iterator[SimulatedExchange]:
    """The simulated exchange in a thread, an hour after a day of about so many trades."""
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    exchange = SimulatedExchange(
        (BTC,),
        rate=trades / DAY_SECONDS,
        start_us=day_start_us(DAY + timedelta(days=1)) + HOUR_US,
        rest_rate=requests_per_second,
    )

    async def serve() -> None:
        async with exchange:
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(60)
        yield exchange
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def check_killed_again_and_again(folder: Path, trades: int, kills: int, requests_per_second: float) -> None:
    home = Home(folder / "home", "simulated")
    spool = Spool.of(home, Exchange.SIMULATED, BTC, DAY)
    with running_exchange(trades, requests_per_second) as exchange:
        environment = os.environ | {
            "LAKEHOUSE_HOME": str(home.root),
            "LAKEHOUSE_FEED": "simulated",
            "LAKEHOUSE_PRODUCTS": BTC,
            "LAKEHOUSE_SIMULATED_REST_PORT": exchange.rest_url.rpartition(":")[2],
            "NO_COLOR": "1",
        }
        environment.pop("DAGSTER_HOME", None)
        made = exchange.market.trades(BTC, day_start_us(DAY), day_start_us(DAY) + DAY_US)
        left = len(made)
        log = folder / "log"
        for number in range(kills + 1):
            with log.open("w") as output:
                process = subprocess.Popen(
                    [sys.executable, str(PROCESS), product_day_key(BTC, DAY)],
                    env=environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
                try:
                    files = len(list(spool.folder.glob("*.npy")))
                    while number < kills and len(list(spool.folder.glob("*.npy"))) == files:
                        assert process.poll() is None, log.read_text()
                        time.sleep(0.001)
                    if number < kills:
                        process.kill()
                finally:
                    code = process.wait()
            said = ASKED.search(log.read_text())
            assert said, log.read_text()
            assert int(said[1]) == left  # nothing that was kept is asked for again
            left = len(made) - len(spool.trades())
            if number < kills:
                assert left > 0
                assert not (home.iceberg.exists() and _sealed(home))
        assert code == 0, log.read_text()
    assert not spool.folder.exists()
    with IcebergStore.open(home) as store:
        rows = store.scan(TRADES).sort_by("trade_id")
        assert seals(store)[BTC, DAY].rows == rows.num_rows
    assert rows["trade_id"].to_pylist() == made["trade_id"].tolist()
    assert microseconds(rows["event_time"]).tolist() == made["event_us"].tolist()
    assert scaled_integers(rows["price"]).tolist() == made["price"].tolist()
    assert scaled_integers(rows["size"]).tolist() == made["size"].tolist()


def _sealed(home: Home) -> bool:
    with IcebergStore.open(home) as store:
        return bool(seals(store)) or store.snapshot_id(TRADES) is not None


@pytest.mark.timeout(300)
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    check_killed_again_and_again(tmp_path, trades=70_000, kills=2, requests_per_second=100)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_run_of_600_000_trades_killed_again_and_again(tmp_path: Path) -> None:
    check_killed_again_and_again(tmp_path, trades=600_000, kills=12, requests_per_second=100)
