"""One of several processes on a table.

`append` adds a row a batch; `seal` reads the partition and replaces it by what it read, under the lock, as
sealing does; `maintain` compacts and expires.
"""

from datetime import timedelta

from table_rows import DAY, make_candles, make_trades

from lakehouse.home import Home
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, TRADES


def on_trades(store: IcebergStore, role: str, batch: int) -> None:
    if role == "append":
        store.append(TRADES, make_trades([batch]), offsets={0: batch + 1})
    elif role == "seal":
        with store.lock(TRADES):
            files = store.data_files(TRADES, product="BTC-USD", day=DAY)
            sealed = {"lakehouse.seals": str(batch + 1)}
            rows = store.read(TRADES, files)
            store.replace(TRADES, "BTC-USD", DAY, rows, properties=sealed, files=files)
    else:
        store.compact(TRADES, fan_in=2)
        store.expire(TRADES, keep=3, grace=timedelta(seconds=20))


def on_candles(store: PaimonStore, role: str, batch: int) -> None:
    if role == "append":
        store.upsert(CANDLES_1M, make_candles([batch]), properties={"lakehouse.frontier.0": str(batch + 1)})
    elif role == "seal":
        with store.lock(CANDLES_1M):
            rows = store.scan(CANDLES_1M, product="BTC-USD", day=DAY)
            sealed = {"lakehouse.seals": str(batch + 1)}
            store.replace(CANDLES_1M, "BTC-USD", DAY, rows, properties=sealed)
    else:
        store.compact(CANDLES_1M, fan_in=2)
        store.expire(CANDLES_1M, keep=3, grace=timedelta(seconds=20))


def run(home: Home, kind: str, role: str, batches: int) -> None:
    if kind == "iceberg":
        with IcebergStore.open(home) as iceberg:
            for batch in range(batches):
                on_trades(iceberg, role, batch)
    else:
        with PaimonStore.open(home) as paimon:
            for batch in range(batches):
                on_candles(paimon, role, batch)
