"""A process for the tests to kill.

It goes on where the table says it stopped: batch n holds two rows, and the offset or property that moves
with them says n + 1, which is then sent. With `maintain` it compacts and expires after each batch.
"""

from datetime import timedelta
from multiprocessing.connection import Connection

import pyarrow as pa
from table_rows import make_candles, make_trades

from lakehouse.home import Home
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, TRADES

FRONTIER = "lakehouse.frontier.0"
NO_GRACE = timedelta(0)


def write_trades(home: Home, committed: Connection, maintain: bool) -> None:
    with IcebergStore.open(home) as store:
        batch = store.offsets(TRADES).get(0, 0)
        while True:
            rows = pa.concat_tables([make_trades([batch]), make_trades([batch], "ETH-USD")])
            store.append(TRADES, rows, offsets={0: batch + 1}, counters={"batches": 1})
            batch += 1
            committed.send(batch)
            if maintain:
                store.compact(TRADES, fan_in=4)
                store.expire(TRADES, keep=2, grace=NO_GRACE)


def write_candles(home: Home, committed: Connection, maintain: bool) -> None:
    with PaimonStore.open(home) as store:
        batch = int(store.properties(CANDLES_1M).get(FRONTIER, 0))
        while True:
            rows = pa.concat_tables([make_candles([batch]), make_candles([batch], "ETH-USD")])
            store.upsert(CANDLES_1M, rows, properties={FRONTIER: str(batch + 1)})
            batch += 1
            committed.send(batch)
            if maintain:
                store.compact(CANDLES_1M, fan_in=4)
                store.expire(CANDLES_1M, keep=2, grace=NO_GRACE)
