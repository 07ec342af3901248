"""How far each product of a table has come in event time, by the manifests."""

from pyiceberg.conversions import from_bytes
from pyiceberg.types import TimestamptzType

from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.iceberg_files import PartitionKey
from lakehouse.stores.schemas import Table


def watermarks(store: IcebergStore, table: Table) -> dict[str, int]:
    """Return the newest event time by product, µs UTC; a product without rows has none.

    Args:
        store: the namespace's tables.
        table: one with `event_time` that is partitioned by product.
    """
    field = table.schema.get_field_index("event_time") + 1
    newest: dict[str, int] = {}
    for file in store.data_files(table):
        product, bound = PartitionKey.of(file).product, (file.upper_bounds or {}).get(field)
        if product is not None and bound is not None:
            newest[product] = max(newest.get(product, 0), int(from_bytes(TimestamptzType(), bound)))
    return newest
