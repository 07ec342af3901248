"""Which product-days have come to rest: what is made of them is made from tables, not left to the stream."""

from datetime import date

from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import EXCHANGE_CANDLES
from lakehouse.stores.seals import SealRecord, seals


def settled_days(store: IcebergStore) -> dict[tuple[str, date], SealRecord | None]:
    """Return the product-days that are sealed, and those whose candles were fetched from the exchange.

    Of a day that was fetched and not sealed the record is None. Candles are only ever fetched of days that
    are over. Reads records and manifests only.

    Raises:
        IcebergStoreError: a seal's record can't be read.
    """
    fetched = {(str(stats.product), stats.day) for stats in store.partitions(EXCHANGE_CANDLES)}
    return dict.fromkeys(fetched) | seals(store)
