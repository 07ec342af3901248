"""What is asked of rows before they reach a table."""

import pyarrow as pa

from lakehouse.stores.schemas import Table


class RowsMismatchError(ValueError):
    """Rows that don't have the table's columns, or belong to another partition."""


def checked_rows(table: Table, rows: pa.Table) -> pa.Table:
    """Return rows with the table's columns in the table's order and types.

    Raises:
        RowsMismatchError: a column is missing, unknown, of another type, or empty where it must not be.
    """
    if set(rows.column_names) != set(table.schema.names):
        missing = sorted(set(table.schema.names) - set(rows.column_names))
        unknown = sorted(set(rows.column_names) - set(table.schema.names))
        raise RowsMismatchError(f"rows for {table.name}: columns missing {missing}, unknown {unknown}")
    rows = rows.select(table.schema.names)
    for field, column in zip(table.schema, rows.columns, strict=True):
        if not field.nullable and column.null_count:
            raise RowsMismatchError(f"rows for {table.name}: {field.name} is empty in {column.null_count}")
        if pa.types.is_floating(column.type) and not pa.types.is_floating(field.type):
            # Arrow would round it.
            raise RowsMismatchError(f"rows for {table.name}: {field.name} holds floats, not {field.type}")
    try:
        return rows.cast(table.schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise RowsMismatchError(f"rows for {table.name}: {error}") from error
