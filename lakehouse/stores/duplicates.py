"""Trades that reached the archive though it held them already, counted by product and day.

The counts are counters of the trades table, so they move in the same snapshot as the rows and the offsets of
the log. The day is that of the trade's event.
"""

from datetime import date
from typing import Final

from lakehouse.market.product import checked_product
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import TRADES

_PREFIX: Final = "duplicates."


def duplicates_counter(product: str, day: date) -> str:
    """Return the name of the counter of a product's day."""
    return f"{_PREFIX}{day.isoformat()}.{checked_product(product)}"


def duplicates(store: IcebergStore) -> dict[tuple[str, date], int]:
    """Return every count by product and day; what is not named has none."""
    found = {}
    for name, count in store.counters(TRADES).items():
        if name.startswith(_PREFIX):
            day, _, product = name.removeprefix(_PREFIX).partition(".")
            found[product, date.fromisoformat(day)] = count
    return found
