"""A sealed day replayed as fast as possible: archive → topic `replay` → candles, all of it in one process.

Held against the log alone: the same messages published to it, with nobody who reads them.
"""

import tempfile
import time
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.prepared_trades import trade_records
from lakehouse.home import Home
from lakehouse.market.time import DAY_US, day_of, now_us
from lakehouse.settings import USD_PRODUCTS, Settings, load_settings
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import REPLAY_CANDLES_1M, TRADES
from streaming.engines.embedded.decode import trade_rows
from streaming.replay.archived import replay_records
from streaming.replay.publisher import Publisher
from streaming.replay.replaying import run
from streaming.replay.settings import Replay, chosen
from streaming.spine.contract import Batch, Partition
from streaming.spine.sqlite import SqliteSpine
from streaming.spine.topics import TRADES as TRADES_TOPIC

COUNT = 2_400_000
ROUNDS = 3


def measure() -> list[Figure]:
    """Replay a day of six products, of which every trade is archived in a sorted file of its product."""
    start_us = now_us() // DAY_US * DAY_US - DAY_US
    day = day_of(start_us)
    records = trade_records(COUNT, start_us=start_us, step_us=DAY_US // COUNT)
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder), "simulated").create()
        settings = load_settings(home=home.root, feed="simulated")
        with IcebergStore.open(home) as archive, PaimonStore.open(home) as candles:
            for product in USD_PRODUCTS:
                own = records[records["product"] == product.encode()]
                messages = [record.tobytes() for record in own]
                rows = trade_rows(Batch(0, own["received_us"].tolist(), messages), Partition(TRADES_TOPIC, 0))
                archive.replace(TRADES, product, day, rows)
            replay = chosen(archive, candles, day, USD_PRODUCTS, None, None)
            rounds = []
            for number in range(ROUNDS):
                limit = _published_alone(archive, replay, home.folder / f"alone-{number}.db")
                rounds.append((_replayed(settings, home, archive, candles, replay), limit))
            counted = sum(candles.scan(REPLAY_CANDLES_1M)["trade_count"].to_pylist())
            if counted != COUNT:
                raise RuntimeError(f"the candles count {counted} trades, not {COUNT}")
    seconds, limit = sorted(rounds)[ROUNDS // 2]
    return [
        Figure(
            f"replay of {COUNT:,} trades: archive → log → candles",
            *(COUNT / seconds, "trades/s", "the log takes the same messages, nobody reads", COUNT / limit),
            "≥ 500,000/s, goal 1,000,000/s",
        )
    ]


def _replayed(
    settings: Settings, home: Home, archive: IcebergStore, candles: PaimonStore, replay: Replay
) -> float:
    return run(settings, home, archive, candles, replay).seconds


def _published_alone(archive: IcebergStore, replay: Replay, path: Path) -> float:
    records = replay_records(archive, replay, {})
    with SqliteSpine.open(path) as spine:
        publisher = Publisher(spine, records, None, lambda: False)
        start = time.perf_counter()
        publisher.run()
        return time.perf_counter() - start
