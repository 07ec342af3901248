"""A backfill in Dagster: many sealed product-days from the archive to checked candles, in one run.

Everything counts that a person waits for: reading, rebuilding, the commit, the checks of each day, and
Dagster's own record of them. Held against the same days rebuilt without Dagster, checks or commits.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
from pyiceberg.table.snapshots import Operation

from benchmarks.figure import Figure
from benchmarks.prepared_trades import trade_records
from lakehouse.candles.rebuild import COLUMNS, rebuild
from lakehouse.home import Home
from lakehouse.market.time import DAY_US, day_start_us, now_us
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.iceberg_commit import Change
from lakehouse.stores.iceberg_files import split_by_partition, write_files
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.rows import checked_rows
from lakehouse.stores.schemas import CANDLES_1M, TRADES
from lakehouse.stores.seals import SealRecord, encode_seal, rows_checksum, seal_property
from lakehouse_assets.definitions import build_defs
from lakehouse_assets.partitions import product_day_key
from streaming.engines.embedded.decode import trade_rows
from streaming.spine.contract import Batch, Partition
from streaming.spine.topics import TRADES as TRADES_TOPIC
from streaming.workers.supervisor import ROOT

DAYS = 1_000
TRADES_A_DAY = 1_000
PRODUCT = "BTC-USD"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def measure() -> list[Figure]:
    """Materialize `candles_1m` of all days in a run as the daemon starts it, with Dagster's own storage."""
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=back) for back in range(DAYS, 0, -1)]
    with tempfile.TemporaryDirectory() as folder, _settings(Path(folder)):
        home = Home(Path(folder), "simulated").create()
        with IcebergStore.open(home) as archive:
            _archive(archive, days)
            limit = _seconds_of_rebuilding(archive)
        job = build_defs().resolve_job_def("seal_days")
        tags = {
            "dagster/asset_partition_range_start": product_day_key(PRODUCT, days[0]),
            "dagster/asset_partition_range_end": product_day_key(PRODUCT, days[-1]),
        }
        with dg.DagsterInstance.get() as instance:
            before = time.perf_counter()
            run = job.execute_in_process(
                instance=instance, tags=tags, run_config=QUIET, asset_selection=[dg.AssetKey(CANDLES_1M.name)]
            )
            seconds = time.perf_counter() - before
        checks = run.get_asset_check_evaluations()
        if not all(check.passed for check in checks) or len(checks) < DAYS:
            raise RuntimeError(f"{len(checks)} checks, of which some failed")
        with PaimonStore.open(home) as candles:
            counted = sum(candles.scan(CANDLES_1M, columns=["trade_count"])["trade_count"].to_pylist())
        if counted != DAYS * TRADES_A_DAY:
            raise RuntimeError(f"the candles count {counted} trades, not {DAYS * TRADES_A_DAY}")
    return [
        Figure(
            f"backfill of {DAYS:,} sealed product-days of {TRADES_A_DAY:,} trades",
            *(seconds, "s", "the days rebuilt in memory", limit),
            "≤ 60 s",
        )
    ]


@contextmanager
def _settings(home: Path) -> Iterator[None]:
    """Have the lakehouse and Dagster in this folder for the block."""
    wanted = {
        "LAKEHOUSE_HOME": str(home),
        "LAKEHOUSE_FEED": "simulated",
        "LAKEHOUSE_PRODUCTS": PRODUCT,
        "DAGSTER_HOME": str(home / "dagster"),
    }
    before = {name: os.environ.get(name) for name in wanted}
    (home / "dagster").mkdir()
    ours = (ROOT / "dagster.yaml").read_text().replace(".lakehouse/dagster", str(home / "dagster"))
    (home / "dagster" / "dagster.yaml").write_text(ours)
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _archive(archive: IcebergStore, days: list[date]) -> None:
    """Archive the days as seals leave them, all in one commit."""
    added, properties = [], {}
    current = archive.current(TRADES)
    step_us = DAY_US // TRADES_A_DAY
    all_records = trade_records(
        len(days) * TRADES_A_DAY, start_us=day_start_us(days[0]), step_us=step_us, products=(PRODUCT,)
    )
    for day, records in zip(days, np.split(all_records, len(days)), strict=True):
        batch = Batch(0, records["received_us"].tolist(), [record.tobytes() for record in records])
        rows = trade_rows(batch, Partition(TRADES_TOPIC, 0)).set_column(
            TRADES.schema.get_field_index("source"),
            TRADES.schema.field("source"),
            pa.repeat("backfill", TRADES_A_DAY),
        )
        added += write_files(TRADES, current, list(split_by_partition(TRADES, checked_rows(TRADES, rows))))
        ids = rows["trade_id"].to_numpy()
        record = SealRecord(
            *(rows.num_rows, 0, int(ids[0]), int(ids[-1]), rows_checksum(PRODUCT, day, rows), True, now_us())
        )
        properties[seal_property(PRODUCT, day)] = encode_seal(record)
    with archive.lock(TRADES):
        archive.commit(TRADES, Change(Operation.APPEND, added, properties=properties))


def _seconds_of_rebuilding(archive: IcebergStore) -> float:
    before = time.perf_counter()
    for file in archive.data_files(TRADES, product=PRODUCT):
        rebuild(archive.read(TRADES, [file], columns=COLUMNS, encoded=True))
    return time.perf_counter() - before
