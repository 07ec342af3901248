"""The account of the schemas: a table's columns in its catalog against those it was registered with."""

from collections.abc import Mapping
from datetime import date
from typing import Final

from lakehouse.reconciliation.breaks import Break, Kind

SCHEMA: Final = "schema"


def schema_breaks(
    day: date, table: str, registered: Mapping[str, str], found: Mapping[str, str]
) -> list[Break]:
    """Return the columns that are not as they were registered, by name; their order says nothing.

    Args:
        day: the UTC day that the answer is given for.
        table: whose columns.
        registered: the type by column, with its nullability.
        found: the same as it is.

    Returns:
        A break for each column that is missing (nothing found), foreign (nothing expected), of another type
        or of another nullability.

    >>> from datetime import date
    >>> (foreign,) = schema_breaks(date(2026, 1, 2), "gaps", {"id": "long"}, {"note": "string", "id": "long"})
    >>> foreign.column_name, foreign.expected, foreign.found
    ('note', '', 'string')
    """
    return [
        Break(day, SCHEMA, Kind.SCHEMA_DRIFT, table, "", column, expected, there, None)
        for column in sorted(registered.keys() | found.keys())
        if (expected := registered.get(column, "")) != (there := found.get(column, ""))
    ]
