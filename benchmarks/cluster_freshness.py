"""From a trade's own time to when another process can read it, at 12,000 trades a second through the cluster.

The cluster and the workers behind the log run as `lakehouse up` starts them; in the place of the exchange and
the feed, which need a core for themselves, a process publishes to the log every 10 ms. Three more look at
Fluss, Iceberg and Paimon and write down up to which trade of each product they hold.
"""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from unittest.mock import patch

import numpy as np
from rich.console import Console

from benchmarks.figure import Figure, percentile
from benchmarks.freshness import look
from benchmarks.own_cluster import own_cluster
from benchmarks.prepared_trades import publish, trade_records
from benchmarks.up import variables
from lakehouse.home import home_of
from lakehouse.market.time import SECOND_US, now_us
from lakehouse.settings import Settings
from lakehouse.stores.fluss_connection import target_of
from lakehouse.stores.fluss_model import FlussHotModel
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M
from lakehouse.stores.schemas import TRADES as ARCHIVED
from streaming.engines.embedded import decode
from streaming.spine.contract import Partition
from streaming.spine.sqlite import SqliteSpine
from streaming.spine.topics import TRADES
from streaming.workers.preparation import prepare
from streaming.workers.supervisor import programs, running

RATE = 12_000
AT_ONCE_SECONDS = 0.01
WORKERS = ("bridge", "archive", "flink_job")
WARM_UP_SECONDS = 75
SECONDS = 40
AFTER_SECONDS = 15
"""Looking goes on this long, so that the last trade has been committed everywhere."""

LOOK_SECONDS = 0.5
"""Between two looks at the tables, which change every five seconds: each takes time from all the others."""

Newest = dict[str, int]
"""Product → up to which trade a store holds all: its id, or its time in µs UTC."""

Sighting = tuple[int, str, int]
"""When it was seen (µs UTC), a product, and its newest by then."""


def measure() -> list[Figure]:
    """Run everything for a while and compare times."""
    with own_cluster(Console(stderr=True).print) as settings_of:
        settings = settings_of("freshness").model_copy(update={"feed": "simulated", "metrics_port": 0})
        home = prepare(settings)
        behind = [program for program in programs(settings, dagster=False) if program.name in WORKERS]
        with (
            patch.dict(os.environ, variables(settings)),
            running(behind, settings, home),
            ProcessPoolExecutor(4, mp_context=get_context("spawn")) as processes,
        ):
            start_us = now_us() + WARM_UP_SECONDS * SECOND_US
            end_us = start_us + SECONDS * SECOND_US
            until_us = end_us + AFTER_SECONDS * SECOND_US
            processes.submit(_publish, settings, end_us)
            looking = [processes.submit(watch, settings, until_us) for watch in (_hot, _iceberg, _paimon)]
            hot, iceberg, paimon = (one.result() for one in looking)
        log = _log(settings)
    chosen = {
        name: trades[(trades[:, 1] >= start_us) & (trades[:, 1] < end_us)] for name, trades in log.items()
    }
    count = sum(map(len, chosen.values()))
    if count < 0.9 * RATE * SECONDS:
        raise RuntimeError(
            f"only {count / SECONDS:,.0f} trades a second came, not {RATE:,}: is the machine busy?"
        )
    checkpoint = settings.flink_checkpoint_seconds
    figures = []
    for part, name in ((0.5, "p50"), (0.99, "p99")):
        to_log, to_hot, to_iceberg, to_paimon = (
            percentile(latencies, part) / SECOND_US
            for latencies in (
                [wait for trades in chosen.values() for wait in (trades[:, 2] - trades[:, 1]).tolist()],
                _latencies(hot, chosen, by=1),
                _latencies(iceberg, chosen, by=0),
                _latencies(paimon, chosen, by=0),
            )
        )
        soon, in_time = ("≤ 250 ms", "≤ 12 s") if name == "p99" else ("–", "–")
        log_name = "trade → the log"
        figures += [
            Figure(
                f"trade → readable in Fluss, {count / SECONDS:,.0f} trades/s, {name}",
                *(to_hot * 1000, "ms", log_name, to_log * 1000, soon),
            ),
            Figure(
                f"trade → row in Iceberg, {name}",
                to_iceberg,
                "s",
                "time between checkpoints",
                checkpoint,
                in_time,
            ),
            Figure(
                f"trade → candle in Paimon, {name}",
                to_paimon,
                "s",
                "time between checkpoints",
                checkpoint,
                in_time,
            ),
        ]
    return figures


def _publish(settings: Settings, until_us: int) -> None:
    """Publish trades to the log at the rate, each with the time of its publication."""
    published, due = 0, time.monotonic()
    at_once = int(RATE * AT_ONCE_SECONDS)
    with SqliteSpine.open(home_of(settings).spine) as spine:
        while now_us() < until_us:
            trades = trade_records(at_once, start_us=now_us(), step_us=0, first=published)
            publish(spine, trades, at_once=at_once)
            published += at_once
            due += AT_ONCE_SECONDS
            time.sleep(max(due - time.monotonic(), 0))


def _hot(settings: Settings, until_us: int) -> list[Sighting]:
    target = target_of(settings, home_of(settings).create())
    with FlussHotModel.open(target, window_minutes=1) as model:
        return look(until_us, 0.002, model.newest_us)


def _iceberg(settings: Settings, until_us: int) -> list[Sighting]:
    with IcebergStore.open(home_of(settings)) as store:

        def newest() -> Newest:
            return {part.product or "": part.max_trade_id or 0 for part in store.partitions(ARCHIVED)}

        return look(until_us, LOOK_SECONDS, newest)


def _paimon(settings: Settings, until_us: int) -> list[Sighting]:
    with PaimonStore.open(home_of(settings)) as store:

        def newest() -> Newest:
            found: Newest = {}
            candles = store.scan(CANDLES_1M)
            columns = (candles["product"].to_pylist(), candles["last_trade_id"].to_pylist())
            for product, last in zip(*columns, strict=True):
                found[product] = max(last, found.get(product, 0))
            return found

        return look(until_us, LOOK_SECONDS, newest)


def _log(settings: Settings) -> dict[str, np.ndarray]:
    """Return each product's trades in the log: id, event time, time when the log took it; ordered by id."""
    parts: dict[str, list[np.ndarray]] = {}
    with SqliteSpine.open(home_of(settings).spine) as spine:
        for number in range(spine.partitions):
            partition, offset = Partition(TRADES, number), 0
            while (batch := spine.read(partition, offset, 100_000)).payloads:
                records = decode.trade_records(batch, partition)
                columns = [records["trade_id"], records["event_us"], np.array(batch.published_us)]
                rows = np.stack(columns, axis=1).astype(np.int64)
                for name in np.unique(records["product"]):
                    parts.setdefault(name.decode(), []).append(rows[records["product"] == name])
                offset = batch.next_offset
    joined = {name: np.concatenate(rows) for name, rows in parts.items()}
    return {name: rows[rows[:, 0].argsort()] for name, rows in joined.items()}


def _latencies(seen: list[Sighting], chosen: dict[str, np.ndarray], *, by: int) -> list[int]:
    """Return the µs from each trade's time to the first sighting at or beyond it, by a column of `_log`."""
    found = []
    for product, trades in chosen.items():
        sightings = np.array(
            sorted((up_to, at_us) for at_us, of, up_to in seen if of == product), dtype=np.int64
        )
        first = np.searchsorted(sightings[:, 0], trades[:, by])
        if (first == len(sightings)).any():
            raise RuntimeError(
                f"{int((first == len(sightings)).sum())} trades of {product} had not come by the end"
            )
        found.append(sightings[first, 1] - trades[:, 1])
    return [int(one) for one in np.concatenate(found)]
