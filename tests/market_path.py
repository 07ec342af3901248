"""The market's whole path as processes: the log's readers under their supervisor, beside a native cluster."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from bridge_world import batches_of_log, in_order, rows_of_log
from busy_market import Published
from pydantic import SecretStr
from reference_candles import from_rows, reference
from running_cluster import RunningCluster

from lakehouse.home import Home
from lakehouse.market.trade import TRADE_RECORD, Lateness, Side
from lakehouse.settings import Settings
from lakehouse.stores.iceberg import IcebergStore, IcebergStoreError
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, TABLES
from streaming.engines.archived_offsets import ArchivedOffsets
from streaming.spine.contract import Partition
from streaming.spine.sqlite import SqliteSpine
from streaming.spine.topics import BOOK, QUOTES, TRADES
from streaming.workers.metrics import Endpoint, scrape, total
from streaming.workers.preparation import prepare
from streaming.workers.supervisor import programs, running, supervised

WORKERS = ("bridge", "archive", "flink_job")
"""What `lakehouse up` runs besides the exchange and the feed, whose place a test's own market takes."""


class MarketPath:
    """The workers of a home and what its tables hold."""

    def __init__(self, cluster: RunningCluster, settings: Settings, home: Home) -> None:
        self.cluster = cluster
        self.settings = settings
        self.home = home
        self._spine = SqliteSpine.open(home.spine)
        self._iceberg = IcebergStore.open(home)
        self._paimon = PaimonStore.open(home)
        self._archived = ArchivedOffsets(self._iceberg, self._spine)

    def close(self) -> None:
        """Close the log and the tables."""
        self._paimon.close()
        self._iceberg.close()
        self._spine.close()

    def kill(self, *victims: str) -> None:
        """Kill -9 workers and processes of the cluster, all at once; each comes back by itself."""
        workers = [self._pid(victim) for victim in victims if victim in WORKERS]
        self.cluster.kill(*(victim for victim in victims if victim not in WORKERS))
        for pid in workers:
            os.kill(pid, signal.SIGKILL)

    def _pid(self, worker: str) -> int:
        return msgspec.json.decode((self.home.run / f"{worker}.json").read_bytes(), type=Endpoint).pid

    def metric(self, worker: str, name: str) -> float | None:
        """Return the sum of a worker's metric, None while it isn't up."""
        samples = scrape(self.home, worker)
        return None if samples is None else total(samples, name)

    def wait_for(self, wanted: Published, within: float) -> float:
        """Wait until the tables hold all that was published; return how many seconds that took."""
        started = time.monotonic()
        while lacking := self.lacking(wanted):
            took = time.monotonic() - started
            assert took < within, f"after {took:.0f} s: {lacking}\n{self.logs()}"
            time.sleep(0.5)
        return time.monotonic() - started

    def lacking(self, wanted: Published) -> str:
        """Say what the tables lack, nothing where they hold all."""
        try:
            self._archived.refresh()
        except IcebergStoreError as error:
            return str(error)
        for partition, end in wanted.ends.items():
            frontier = self._archived.frontier(partition)
            if frontier < end:
                return f"{partition.topic}/{partition.number} is archived up to {frontier}, not {end}"
        in_candles = dict.fromkeys(wanted.last_ids, 0)
        for row in self._paimon.scan(CANDLES_1M).to_pylist():
            # What comes late may be under way; that nothing is lost is seen at the end.
            last = min(row["last_trade_id"], wanted.last_ids[row["product"]])
            in_candles[row["product"]] += min(row["trade_count"], max(last - row["first_trade_id"] + 1, 0))
        for product, last in wanted.last_ids.items():
            if in_candles[product] < last:
                return f"the candles of {product} have {in_candles[product]} of the first {last} trades"
        return ""

    def check(self) -> dict[str, int]:
        """Compare all tables with the log, each row and column; return how many rows they have."""
        counts = {}
        for topic in (TRADES, QUOTES, BOOK):
            found = in_order(self._iceberg.scan(TABLES[topic]).replace_schema_metadata(None))
            logged = rows_of_log(self._spine, topic)
            assert found.num_rows == logged.num_rows, difference(topic, found, logged)
            assert found.equals(logged.select(found.column_names).cast(found.schema)), f"{topic} differs"
            counts[topic] = found.num_rows
        candles = from_rows(self._paimon.scan(CANDLES_1M).to_pylist())
        wanted = self._wanted_candles()
        assert candles.keys() == wanted.keys()
        for key, candle in wanted.items():
            assert candles[key] == candle, f"the candle {key}"
        return counts | {"candles_1m": len(candles)}

    def _wanted_candles(self) -> dict[tuple[str, int], dict[str, object]]:
        """Compute the candles from the log's own bytes, the slow way, one product after the other."""
        made: dict[tuple[str, int], dict[str, object]] = {}
        for number in range(self._spine.partitions):
            batches = list(batches_of_log(self._spine, Partition(TRADES, number)))
            records = np.frombuffer(b"".join(b"".join(batch.payloads) for batch in batches), TRADE_RECORD)
            recorded = np.array([us for batch in batches for us in batch.published_us])
            for name in np.unique(records["product"]):
                here = records["product"] == name
                columns = [records[here][c].tolist() for c in ("trade_id", "event_us", "price", "size")]
                columns.append((records[here]["taker_side"] == Side.BUY).tolist())
                columns.append((records[here]["late"] == Lateness.LATE).tolist())
                columns.append(recorded[here].tolist())
                names = ("trade_id", "event_us", "price", "size", "buy", "late", "recorded_us")
                rows = zip(*columns, strict=True)
                made |= reference(
                    {"product": name.decode()} | dict(zip(names, row, strict=True)) for row in rows
                )
        return made

    def logs(self) -> str:
        """Return the ends of the workers' logs."""
        return "\n".join(f"{w}:\n{(self.home.logs / f'{w}.log').read_text()[-2500:]}" for w in WORKERS)


def difference(topic: str, found: pa.Table, logged: pa.Table) -> str:
    """Say which messages a table lacks or has twice, by partition."""
    said = [f"{topic}: {found.num_rows} rows, not {logged.num_rows}"]
    for number in range(logged["spine_partition"].to_numpy().max() + 1):
        times = []
        for rows in (found, logged):
            here = rows.filter(pc.equal(rows["spine_partition"], number))
            times.append(np.bincount(here["spine_offset"].to_numpy(), minlength=len(logged)))
        for what, wrong in (("lacking", times[0] < times[1]), ("repeated", times[0] > times[1])):
            offsets = np.flatnonzero(wrong)
            if len(offsets):
                said.append(f"{number}: {len(offsets)} {what} from {offsets[0]} to {offsets[-1]}")
    return "; ".join(said)


@contextmanager
def market_path(
    cluster: RunningCluster, folder: Path, monkeypatch: pytest.MonkeyPatch, **overrides: object
) -> Iterator[MarketPath]:
    """Run the workers on a home of its own for the block, as `lakehouse up` would."""
    chosen = {"feed": "simulated", "metrics_port": 0} | overrides
    settings = cluster.settings(folder / "home", **chosen)
    monkeypatch.chdir(folder)
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        monkeypatch.setenv(f"LAKEHOUSE_{name.upper()}", text)
    home = prepare(settings)
    chosen_programs = [one for one in programs(settings, dagster=False) if one.name in WORKERS]
    assert {one.name for one in chosen_programs} == set(WORKERS)
    with running(chosen_programs, settings, home):
        path = MarketPath(cluster, settings, home)
        try:
            yield path
            states = supervised(home)
            assert set(states.values()) == {"RUNNING"}, states
        finally:
            path.close()
