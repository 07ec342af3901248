"""A sealed product-day: from the archive to candles in Paimon, held against reading its columns."""

import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.figure import Figure, median_seconds
from benchmarks.prepared_trades import trade_records
from lakehouse.candles.rebuild import COLUMNS, rebuild
from lakehouse.home import Home
from lakehouse.market.time import DAY_US, day_of, now_us
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, TRADES
from lakehouse.stores.seals import known_edges
from streaming.engines.embedded.decode import trade_rows
from streaming.spine.contract import Batch, Partition
from streaming.spine.topics import TRADES as TRADES_TOPIC

COUNT = 600_000
PRODUCT = "BTC-USD"
REPEATS = 9


def measure() -> list[Figure]:
    """Rebuild a day of which every trade is archived in one sorted file, as a seal leaves it."""
    start_us = now_us() // DAY_US * DAY_US - DAY_US
    day = day_of(start_us)
    records = trade_records(COUNT, start_us=start_us, step_us=DAY_US // COUNT, products=(PRODUCT,))
    batch = Batch(0, records["received_us"].tolist(), [record.tobytes() for record in records])
    rows = trade_rows(batch, Partition(TRADES_TOPIC, 0))
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder), "simulated").create()
        with IcebergStore.open(home) as archive, PaimonStore.open(home) as candles:
            archive.replace(TRADES, PRODUCT, day, rows)
            (file,) = archive.data_files(TRADES, product=PRODUCT, day=day)

            def rebuilt() -> None:
                trades = archive.scan(TRADES, product=PRODUCT, day=day, columns=COLUMNS, encoded=True)
                made = rebuild(trades, known_edges(archive, PRODUCT, day))
                candles.replace(CANDLES_1M, PRODUCT, day, made)

            seconds = median_seconds(rebuilt, repeats=REPEATS)
            scanning = median_seconds(
                lambda: pq.ParquetFile(file.file_path).read(list(COLUMNS)), repeats=REPEATS
            )
            counted = sum(candles.scan(CANDLES_1M)["trade_count"].to_pylist())
            if counted != COUNT:
                raise RuntimeError(f"the candles count {counted} trades, not {COUNT}")
    return [
        Figure(
            f"archive → candles, a product-day of {COUNT:,} trades",
            *(seconds, "s", "pyarrow reads the nine columns", scanning),
            "≤ 0.5 s, goal 0.3 s",
        )
    ]
