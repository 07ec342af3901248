"""Processes that write one table at once: every acknowledged row is there afterwards."""

from datetime import timedelta
from multiprocessing.context import ForkServerContext

from concurrent_writer import run
from table_rows import DAY

from lakehouse.home import Home
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, TRADES

BATCHES = 25


def run_together(processes: ForkServerContext, home: Home, store: str) -> None:
    writers = [
        processes.Process(target=run, args=(home, store, role, BATCHES))
        for role in ("append", "seal", "maintain")
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]


def test_appends_replacements_and_compactions_lose_nothing(home: Home, processes: ForkServerContext) -> None:
    run_together(processes, home, "iceberg")
    with IcebergStore.open(home) as store:
        assert store.offsets(TRADES) == {0: BATCHES}
        assert sorted(store.scan(TRADES, product="BTC-USD", day=DAY)["trade_id"].to_pylist()) == list(
            range(BATCHES)
        )
        assert int(store.properties(TRADES)["lakehouse.seals"]) == BATCHES
        store.expire(TRADES, keep=1, grace=timedelta(0))
        assert store.scan(TRADES).num_rows == BATCHES


def test_upserts_replacements_and_compactions_lose_nothing(home: Home, processes: ForkServerContext) -> None:
    run_together(processes, home, "paimon")
    with PaimonStore.open(home) as store:
        properties = store.properties(CANDLES_1M)
        assert (properties["lakehouse.frontier.0"], properties["lakehouse.seals"]) == (str(BATCHES),) * 2
        candles = store.scan(CANDLES_1M, product="BTC-USD", day=DAY)
        assert [first // 10 for first in candles["first_trade_id"].to_pylist()] == list(range(BATCHES))
        assert store.scan(CANDLES_1M).num_rows == BATCHES
