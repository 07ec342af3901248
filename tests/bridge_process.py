"""The bridge as the process it is, a market that goes on meanwhile, and Fluss's processes being killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from bridge_world import check_nothing_is_missing, drop
from running_cluster import RunningCluster

from benchmarks.prepared_trades import publish, trade_records
from lakehouse.home import Home
from lakehouse.market.time import now_us
from lakehouse.stores.fluss_connection import FlussTarget, target_of
from streaming.spine.contract import Partition
from streaming.spine.sqlite import SqliteSpine
from streaming.workers.metrics import scrape, total


class Market:
    """Publishes trades at a rate into a home's log until it is stopped."""

    AT_ONCE_SECONDS = 0.05

    def __init__(self, home: Home, rate: int) -> None:
        self._spine = SqliteSpine.open(home.spine)
        self._at_once = int(rate * self.AT_ONCE_SECONDS)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.published = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._spine.close()

    def stop(self) -> None:
        """Publish no more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(due - time.monotonic(), 0)):
            due += self.AT_ONCE_SECONDS
            trades = trade_records(self._at_once, start_us=now_us(), step_us=100, first=self.published)
            publish(self._spine, trades, at_once=self._at_once)
            self.published += self._at_once


class BridgeProcess:
    """`streaming.workers.bridge` on a home, the embedded engine beside it: nothing is ever archived."""

    TIMEOUT_SECONDS = 5.0

    def __init__(self, cluster: RunningCluster, folder: Path) -> None:
        self.home = Home(folder / "home", "simulated").create()
        settings = cluster.settings(
            self.home.root,
            **{"engine": "embedded", "fluss_timeout_seconds": self.TIMEOUT_SECONDS, "feed": "simulated"},
        )
        self.target: FlussTarget = target_of(settings, self.home)
        chosen = {
            "home": self.home.root,
            "feed": "simulated",
            "spine": "sqlite",
            "hot_store": "fluss",
            "engine": "embedded",
            "fluss_address": settings.fluss_address,
            "fluss_timeout_seconds": self.TIMEOUT_SECONDS,
            "metrics_port": 0,
        }
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("LAKEHOUSE_")}
        self.environment |= {f"LAKEHOUSE_{name.upper()}": str(value) for name, value in chosen.items()}
        self._log = folder / "bridge.log"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it must not be running."""
        assert self._process is None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streaming.workers.bridge"],
                env=self.environment | {"PYTHONPATH": str(Path(__file__).parents[1])},
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """Kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """Stop it as its supervisor does; it must end well."""
        process, self._process = self._process, None
        assert process is not None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, self.log()

    def keep(self) -> None:
        """Start it again if it gave up, as its supervisor does."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
            self.start()

    def log(self) -> str:
        """The end of its log."""
        return self._log.read_text()[-4000:]

    def lag(self) -> float | None:
        """Messages that are not acknowledged, None while it isn't up."""
        samples = scrape(self.home, "bridge")
        return None if samples is None else total(samples, "lakehouse_engine_lag_messages")

    def caught_up(self, market: Market, within: float) -> float:
        """Wait until all that is in the log now is in Fluss; return how long it took."""
        return self.pushed(market, market.published, within)

    def pushed(self, market: Market, wanted: int, within: float) -> float:
        """Wait until so many trades are in Fluss; return how long it took."""
        started = time.monotonic()
        while True:
            self.keep()
            lag = self.lag()
            if lag is not None and market.published - lag >= wanted:
                return time.monotonic() - started
            took = time.monotonic() - started
            assert took < within, f"{lag} messages behind after {took:.0f} s\n{self.log()}"
            time.sleep(0.1)

    def check(self) -> int:
        """Compare Fluss with the log; return how many rows are there more than once."""
        with SqliteSpine.open(self.home.spine) as spine:
            for number in range(spine.partitions):
                assert spine.committed("bridge", Partition("trades", number)) in (None, 0)
            return check_nothing_is_missing(spine, self.target)


@contextmanager
def bridge_process(cluster: RunningCluster, folder: Path) -> Iterator[BridgeProcess]:
    """A bridge on a home of its own; its tables and its process are gone at the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    made = BridgeProcess(cluster, folder)
    drop(made.target)
    try:
        yield made
    finally:
        if made._process is not None:
            made.kill()
        drop(made.target)
