"""The platform's workers as real processes on a home of their own: started, killed, waited for, stopped."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import numpy as np

from lakehouse.home import Home
from lakehouse.market.gap import Gap, GapStatus
from lakehouse.market.trade import TRADE_RECORD
from lakehouse.market.trade_ids import TradeIds
from lakehouse.settings import load_settings
from streaming.spine.contract import Partition, Spine
from streaming.spine.opening import open_spine
from streaming.spine.topics import GAPS, TRADES
from streaming.workers.metrics import scrape, total

MODULES = {
    "exchange": "streaming.workers.simulated_exchange",
    "feed": "streaming.workers.feed",
    "hot": "streaming.workers.hot",
    "archive": "streaming.workers.archive",
    "candles": "streaming.workers.candles",
    "drain": "streaming.workers.drain",
}
STAGES = ("hot", "archive", "candles")

_POLL_SECONDS = 0.1


def wait_until(reached: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something that has to happen in time."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(_POLL_SECONDS)


class Workers:
    """The workers on one home.

    Args:
        folder: the home lies in it, the workers run in it, their logs are in it.
        namespace: of the home.
        settings: of all workers, by their names without LAKEHOUSE_.
    """

    def __init__(self, folder: Path, namespace: str = "simulated", **settings: object) -> None:
        self.folder = folder
        self.home = Home(folder / "home", namespace).create()
        chosen = {"home": self.home.root, "metrics_port": 0} | settings
        self.settings = load_settings(**chosen)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("LAKEHOUSE_")}
        self.environment |= {f"LAKEHOUSE_{name.upper()}": str(value) for name, value in chosen.items()}
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def open_spine(self) -> Spine:
        """Open the log the workers use."""
        return open_spine(self.settings, self.home)

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start a worker; it must not be running."""
        assert name not in self.running
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", MODULES[name]],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        self.running[name] = process
        return process

    def kill(self, name: str) -> None:
        """Kill -9 a worker, which must be alive."""
        process = self.running.pop(name)
        assert process.poll() is None, f"{name} ended by itself ({process.returncode}):\n{self.log(name)}"
        process.kill()
        process.wait()

    def stop(self, name: str) -> None:
        """Stop a worker as its supervisor does; it must end well."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(60) == 0, f"{name} ended with {process.returncode}:\n{self.log(name)}"
        finally:
            process.kill()

    def end(self) -> None:
        """Leave no process behind, whatever happened."""
        for process in self.running.values():
            process.kill()
        for process in self.running.values():
            process.wait()
        self.running.clear()

    def revive(self, name: str) -> None:
        """Start a worker again if it ended, as its supervisor does."""
        if self.running[name].poll() is not None:
            del self.running[name]
            self.start(name)

    def log(self, name: str) -> str:
        """The end of a worker's log."""
        return (self.folder / f"{name}.log").read_text()[-4000:]

    def metric(self, worker: str, name: str) -> float | None:
        """The sum of a worker's metric, None while it isn't up."""
        samples = scrape(self.home, worker)
        return None if samples is None else total(samples, name)

    def is_working(self, name: str) -> bool:
        """Tell whether a worker has done something since it was started."""
        if name == "exchange":
            port = int(self.environment["LAKEHOUSE_SIMULATED_WEBSOCKET_PORT"])
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0
        done = "lakehouse_feed_received_total" if name == "feed" else "lakehouse_engine_messages_total"
        return (self.metric(name, done) or 0) > 0

    def check_alive(self) -> None:
        """Fail if a worker has ended by itself."""
        for name, process in self.running.items():
            assert process.poll() is None, f"{name} ended ({process.returncode}):\n{self.log(name)}"

    def wait_until(self, reached: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait for something that has to happen in time while all workers live."""

        def reached_alive() -> bool:
            self.check_alive()
            return reached()

        wait_until(reached_alive, seconds, f"{what}\n{self.log('feed')}")

    def stop_when_all_is_committed(self, seconds: float = 120) -> None:
        """Stop the feed, let the stages come to the end of the log, and stop them."""
        self.stop("feed")
        for stage in STAGES:
            wait_until(
                lambda stage=stage: self.metric(stage, "lakehouse_engine_lag_messages") == 0,
                seconds,
                f"{stage} at the end of the log\n{self.log(stage)}",
            )
            self.stop(stage)


@contextmanager
def workers(folder: Path, namespace: str = "simulated", **settings: object) -> Iterator[Workers]:
    """Workers that are gone at the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Workers(folder, namespace, **settings)
    try:
        yield made
    finally:
        made.end()


@contextmanager
def fixed_exchange(folder: Path, **arguments: object) -> Iterator[tuple[str, str]]:
    """A `SimulatedExchange` in a process; gives its WebSocket's and its REST's address."""
    script = Path(__file__).with_name("exchange_process.py")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "exchange.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, script, json.dumps(arguments)], stdout=subprocess.PIPE, stderr=log
        )
    try:
        assert process.stdout is not None
        first_line = process.stdout.readline()
        assert first_line, (folder / "exchange.log").read_text()[-4000:]
        websocket, rest = json.loads(first_line)
        yield websocket, rest
        assert process.poll() is None, (folder / "exchange.log").read_text()[-4000:]
    finally:
        process.kill()
        process.wait()


def ports_of(websocket: str, rest: str) -> dict[str, object]:
    """The settings that lead a feed to an exchange."""
    return {
        "simulated_websocket_port": urlsplit(websocket).port,
        "simulated_rest_port": urlsplit(rest).port,
    }


class Log:
    """What the feed has put into the log so far: known trades, and those it gave up."""

    def __init__(self, spine: Spine) -> None:
        self._spine = spine
        self._next: dict[Partition, int] = {}
        self.known: dict[str, TradeIds] = {}
        self.given_up: dict[str, TradeIds] = {}

    def read(self) -> None:
        """Read on to the end."""
        for number in range(self._spine.partitions):
            for payloads in self._new(Partition(TRADES, number)):
                records = np.frombuffer(b"".join(payloads), TRADE_RECORD)
                for name in np.unique(records["product"]):
                    ids = np.sort(records["trade_id"][records["product"] == name])
                    self.known.setdefault(name.decode(), TradeIds()).add_new(ids)
            for payloads in self._new(Partition(GAPS, number)):
                for gap in (msgspec.msgpack.decode(payload, type=Gap) for payload in payloads):
                    if gap.status is GapStatus.UNFILLABLE:
                        ids = self.given_up.setdefault(gap.product, TradeIds())
                        ids.add_range(gap.first_trade_id, gap.last_trade_id)

    def _new(self, partition: Partition) -> Iterator[list[bytes]]:
        while payloads := self._spine.read(partition, self._next.get(partition, 0), 100_000).payloads:
            self._next[partition] = self._next.get(partition, 0) + len(payloads)
            yield list(payloads)

    def covers(self, last_ids: Mapping[str, int]) -> bool:
        """Tell whether every trade from the first known one to `last_ids` is known or given up."""
        self.read()
        for product, last_id in last_ids.items():
            known = self.known.get(product)
            if known is None or known.lowest is None:
                return False
            settled = TradeIds([*known, *self.given_up.get(product, TradeIds())])
            if not settled.covers(known.lowest, last_id):
                return False
        return True

    def close(self) -> None:
        """Close the log."""
        self._spine.close()
