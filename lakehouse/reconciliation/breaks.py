"""A break: one thing that two accounts of a product-day disagree about, and how it becomes a table row."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

import pyarrow as pa

from lakehouse.market.product import checked_product
from lakehouse.stores.schemas import RECONCILIATION


class Kind(StrEnum):
    """The class of a break."""

    MISSING = "MISSING"
    """One account has a row that the other lacks."""
    DUPLICATE = "DUPLICATE"
    """A row is there more than once; its values are not compared then, as nobody knows which copy counts."""
    VALUE_DRIFT = "VALUE_DRIFT"
    """Both have the row once, with different values."""
    SCHEMA_DRIFT = "SCHEMA_DRIFT"
    """A table has other columns, types or nullability than were registered."""


class Break(NamedTuple):
    """One break; the columns of the table `reconciliation` without the product and the time."""

    day: date
    comparison: str
    kind: Kind
    table_name: str
    """The table that lacks the row, has it twice, or drifted."""
    row_key: str
    column_name: str
    expected: str
    found: str
    amount: Decimal | None
    """found - expected where they are numbers; None where it has more than 22 digits before the point."""


Identity = tuple[object, ...]
"""What makes a break the same one as before: everything but when it was found."""


def identity(row: Mapping[str, object]) -> Identity:
    """Return what identifies a row of the table: the same as that of the break it was made of."""
    return tuple(row[name] for name in Break._fields)


def break_rows(
    breaks: Sequence[Break], product: str, known_since: Mapping[Identity, datetime], now: datetime
) -> pa.Table:
    """Return breaks of a product as rows of the table.

    Args:
        breaks: in any order.
        product: whose.
        known_since: when breaks that are there already were first found: they keep that time, so that
            comparing again what has not changed changes nothing.
        now: when the others were found, UTC.
    """
    checked_product(product)
    rows = []
    for one in breaks:
        row = {**one._asdict(), "kind": one.kind.value, "product": product}
        rows.append({**row, "recorded_at": known_since.get(identity(row), now)})
    return pa.Table.from_pylist(rows, schema=RECONCILIATION.schema)
