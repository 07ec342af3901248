"""From a trade's own time to when another process can read it, at 12,000 trades a second.

Everything runs as `lakehouse up` starts it: the simulated exchange, the feed and the three stages, each a
process, with all channels on (matches, ticker, book, heartbeat). Three processes more look at the stores and
write down when the offsets that are committed with the rows went past a trade. A trade's time is the
exchange's, which sends it within 4 ms.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from benchmarks.figure import Figure, percentile
from benchmarks.free_ports import free_ports
from lakehouse.candles.open_minutes import OpenMinutes
from lakehouse.home import Home
from lakehouse.market.time import SECOND_US, now_us
from lakehouse.market.trade import Source
from lakehouse.settings import load_settings
from lakehouse.stores.hot import HotStore
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M
from lakehouse.stores.schemas import TRADES as TRADES_TABLE
from streaming.engines.embedded.candles import STATE
from streaming.engines.embedded.decode import trade_records
from streaming.exchanges.simulated.market import SimulatedMarket
from streaming.spine.contract import Partition
from streaming.spine.sqlite import SqliteSpine
from streaming.spine.topics import TRADES
from streaming.workers.hot import PAUSE_SECONDS

RATE = 12_000
WARM_UP_SECONDS = 20
SECONDS = 30
AFTER_SECONDS = 6
"""Looking goes on this long, so that the last trade has been committed everywhere."""

WORKERS = ("simulated_exchange", "feed", "hot", "archive", "candles")

_EVENT, _RECEIVED, _SOURCE = range(3)
"""Columns of `_times`."""

Key = TypeVar("Key", int, str)

Sighting = tuple[int, int, int]
"""When it was seen (µs UTC), a partition, and its next offset by then."""


def measure() -> list[Figure]:
    """Run everything for a while and compare times."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder), "simulated").create()
        start_us = now_us() + WARM_UP_SECONDS * SECOND_US
        end_us = start_us + SECONDS * SECOND_US
        until_us = end_us + AFTER_SECONDS * SECOND_US
        # The observers start with the workers: loading their libraries must not fall into the measured time.
        with (
            ProcessPoolExecutor(3, mp_context=get_context("spawn")) as observers,
            _running(home, rate_to_set(RATE, start_us, end_us)),
        ):
            looking = [observers.submit(watch, home, until_us) for watch in (_hot, _iceberg, _paimon)]
            hot, iceberg, paimon = (one.result() for one in looking)
        with SqliteSpine.open(home.spine) as spine:
            log = [_times(spine, number) for number in range(spine.partitions)]
    measured = [_chosen(times, start_us, end_us) for times in log]
    to_socket = np.concatenate(
        [
            times[chosen, _RECEIVED] - times[chosen, _EVENT]
            for times, chosen in zip(log, measured, strict=True)
        ]
    ).tolist()
    rate = len(to_socket) / SECONDS
    if rate < 0.9 * RATE:
        raise RuntimeError(f"only {rate:,.0f} trades a second arrived, not {RATE:,}: is the machine busy?")
    settings = load_settings()
    waits = settings.flush_interval_ms + PAUSE_SECONDS * 1000
    commits = ("s", "time between commits", settings.commit_interval_ms / 1000)
    figures = []
    for part, name in ((0.5, "p50"), (0.99, "p99")):

        def latency(seen: list[Sighting], since: int, part: float = part) -> float:
            return percentile(_latencies(seen, log, measured, since), part) / SECOND_US

        soon, in_time = ("≤ 50 ms", "≤ 5 s") if name == "p99" else ("–", "–")
        alone = percentile(to_socket, part) / 1000
        figures += [
            Figure(
                f"frame at the feed's socket → hot store, {rate:,.0f} trades/s, {name}",
                *(latency(hot, _RECEIVED) * 1000, "ms", "the feed's and the hot stage's waits", waits, soon),
            ),
            Figure(
                f"trade → hot store, {name}",
                *(latency(hot, _EVENT) * 1000, "ms", "trade → the feed's socket", alone, soon),
            ),
            Figure(f"trade → row in Iceberg, {name}", latency(iceberg, _EVENT), *commits, in_time),
            Figure(f"trade → candle in Paimon, {name}", latency(paimon, _EVENT), *commits, in_time),
        ]
    return figures


@contextmanager
def _running(home: Home, rate: float) -> Iterator[None]:
    """Run the exchange and the workers for the block."""
    websocket, rest = free_ports(2)
    environment = os.environ | {
        "LAKEHOUSE_HOME": str(home.root),
        "LAKEHOUSE_FEED": "simulated",
        "LAKEHOUSE_SIMULATED_RATE": str(rate),
        "LAKEHOUSE_SIMULATED_WEBSOCKET_PORT": str(websocket),
        "LAKEHOUSE_SIMULATED_REST_PORT": str(rest),
        "LAKEHOUSE_METRICS_PORT": "0",
    }
    with ExitStack() as stack, (home.logs / "benchmark.log").open("w") as log:
        for worker in WORKERS:
            process = subprocess.Popen(
                [sys.executable, "-m", f"streaming.workers.{worker}"], env=environment, stdout=log, stderr=log
            )
            stack.callback(_end, worker, process)
        yield


def rate_to_set(rate: float, start_us: int, end_us: int) -> float:
    """Return the average to set for `rate` trades/s in the measured time: the market has its hours."""
    settings = load_settings(feed="simulated")
    market = SimulatedMarket(settings.simulated_seed, settings.chosen_products, rate)
    before, after = (
        sum(market[product].last_id_before(at_us) for product in market.products)
        for at_us in (start_us, end_us)
    )
    return rate * rate * (end_us - start_us) / SECOND_US / (after - before)


def _end(worker: str, process: subprocess.Popen[bytes]) -> None:
    died = process.poll()
    process.terminate()
    process.wait()
    if died is not None:
        raise RuntimeError(f"{worker} ended with {died} while it was measured")


def look(until_us: int, pause: float, newest: Callable[[], Mapping[Key, int]]) -> list[tuple[int, Key, int]]:
    """Note each change of what a store holds: when it was seen, of what, and its newest by then."""
    seen: list[tuple[int, Key, int]] = []
    before: Mapping[Key, int] = {}
    while now_us() < until_us:
        current = newest()
        at_us = now_us()
        seen += [(at_us, key, up_to) for key, up_to in current.items() if before.get(key) != up_to]
        before = dict(current)
        time.sleep(pause)
    return seen


def _hot(home: Home, until_us: int) -> list[Sighting]:
    with HotStore.open(home.hot_store) as store:
        return look(
            until_us,
            0.001,
            lambda: {number: at for (topic, number), at in store.offsets().items() if topic == TRADES},
        )


def _iceberg(home: Home, until_us: int) -> list[Sighting]:
    with IcebergStore.open(home) as store:
        return look(until_us, 0.02, lambda: store.offsets(TRADES_TABLE))


def _paimon(home: Home, until_us: int) -> list[Sighting]:
    with PaimonStore.open(home) as store:
        decoded: dict[str, dict[int, int]] = {}

        def offsets() -> dict[int, int]:
            state = store.properties(CANDLES_1M).get(STATE, "")
            if state and state not in decoded:
                decoded.clear()
                decoded[state] = OpenMinutes.restored(state, 0)[1]
            return decoded.get(state, {})

        return look(until_us, 0.02, offsets)


def _times(spine: SqliteSpine, number: int) -> npt.NDArray[np.int64]:
    """Return a partition's trades, in the order of the log: event time, time of receipt, source."""
    partition = Partition(TRADES, number)
    parts = []
    offset = 0
    while (batch := spine.read(partition, offset, 100_000)).payloads:
        records = trade_records(batch, partition)
        parts.append(np.stack([records[name] for name in ("event_us", "received_us", "source")], axis=1))
        offset = batch.next_offset
    return np.concatenate(parts).astype(np.int64)


def _chosen(times: npt.NDArray[np.int64], start_us: int, end_us: int) -> npt.NDArray[np.bool_]:
    chosen: npt.NDArray[np.bool_] = (
        (times[:, _EVENT] >= start_us) & (times[:, _EVENT] < end_us) & (times[:, _SOURCE] == Source.FEED)
    )
    return chosen


def _latencies(
    seen: list[Sighting],
    log: list[npt.NDArray[np.int64]],
    measured: list[npt.NDArray[np.bool_]],
    since: int,
) -> list[int]:
    """Return the µs from a time of each measured trade (a column of `_times`) to its first sighting."""
    found = []
    for number, (times, chosen) in enumerate(zip(log, measured, strict=True)):
        sightings = [(offset, at_us) for at_us, of, offset in seen if of == number]
        offsets, at_us = np.array(sorted(sightings), dtype=np.int64).reshape(-1, 2).T
        first = np.searchsorted(offsets, np.flatnonzero(chosen), side="right")
        if (first == len(offsets)).any():
            raise RuntimeError(f"{int((first == len(offsets)).sum())} trades had not come by the end")
        found.append(at_us[first] - times[chosen, since])
    return [int(one) for one in np.concatenate(found)]
