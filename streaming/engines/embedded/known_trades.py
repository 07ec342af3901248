"""Which trades the archive holds already, decided against the table itself."""

from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakehouse.market.trade_ids import TradeIds
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.iceberg_partitions import PartitionStats
from lakehouse.stores.schemas import TRADES


class KnownTrades:
    """The trade ids in the archive, as intervals, read from it only as far as they are needed.

    The manifests say which ids each partition can hold. Nearly always the next trades are above all of them,
    so no row is read; a trade that is not makes the partitions that may hold it be read, once. What this
    process commits itself is added as it goes, and all is forgotten when another writer has committed.

    Every method is called with the table's lock held.
    """

    def __init__(self, store: IcebergStore) -> None:
        self._store = store
        self._snapshot: int | None = None
        self._ids: dict[str, TradeIds] | None = None
        self._unread: dict[str, list[PartitionStats]] = {}

    def add_new(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """Tell for each row of `trades` whether it is new, and take it for known from now on."""
        self._look_again_after_another_writer()
        products = rows["product"].combine_chunks().dictionary_encode()
        codes = products.indices.to_numpy()
        trade_ids = rows["trade_id"].to_numpy()
        new = np.zeros(rows.num_rows, dtype=np.bool_)
        for code, product in enumerate(products.dictionary.to_pylist()):
            of_product = slice(None) if len(products.dictionary) == 1 else np.flatnonzero(codes == code)
            ids = trade_ids[of_product]
            new[of_product] = self._known(product, int(ids.min()), int(ids.max())).add_new(ids)
        return new

    def committed(self, snapshot: int | None) -> None:
        """Take note of the snapshot that this process made, which holds no other rows than are known."""
        self._snapshot = snapshot

    def forget(self) -> None:
        """Forget everything: what was added may not have been committed."""
        self._ids = None

    def unchanged(self) -> bool:
        """Tell whether the newest snapshot is the one that `committed` was told of."""
        return self._ids is not None and self._store.snapshot_id(TRADES) == self._snapshot

    def _look_again_after_another_writer(self) -> None:
        if self.unchanged():
            return
        self._snapshot = self._store.snapshot_id(TRADES)
        self._ids = {}
        self._unread = {}
        for partition in self._store.partitions(TRADES):
            self._unread.setdefault(str(partition.product), []).append(partition)

    def _known(self, product: str, lowest: int, highest: int) -> TradeIds:
        """Return a product's known ids, complete between two ids."""
        if self._ids is None:
            raise AssertionError("ids are looked up after they were forgotten")
        ids = self._ids.setdefault(product, TradeIds())
        unread = []
        for partition in self._unread.get(product, ()):
            if _may_hold(partition, lowest, highest):
                _add_all(ids, self._read(product, partition.day))
            else:
                unread.append(partition)
        self._unread[product] = unread
        return ids

    def _read(self, product: str, day: date) -> npt.NDArray[np.int64]:
        trade_ids: npt.NDArray[np.int64] = self._store.scan(
            TRADES, product=product, day=day, columns=["trade_id"]
        )["trade_id"].to_numpy()
        return trade_ids


def _add_all(ids: TradeIds, trade_ids: npt.NDArray[np.int64]) -> None:
    ids.add_new(np.sort(trade_ids))


def _may_hold(partition: PartitionStats, lowest: int, highest: int) -> bool:
    if partition.min_trade_id is None or partition.max_trade_id is None:
        return True
    return partition.min_trade_id <= highest and lowest <= partition.max_trade_id
