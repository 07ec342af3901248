"""How a table is described in Dagster: from its one definition in `lakehouse.stores.schemas`."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import dagster as dg

from lakehouse.home import Home
from lakehouse.stores.schemas import Table

GROUP: Final = "market"
OWNERS: Final = ["team:market-data"]

DAILY: Final = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(hours=26), fail_window=timedelta(hours=36)
)
"""A day is over at midnight and sealed minutes later, so what is made of it is never older than a day."""


def column_schema(table: Table) -> dg.TableSchema:
    """Return a table's columns with their meaning."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=field.name,
                type=str(field.type),
                description=field.metadata[b"description"].decode(),
                constraints=dg.TableColumnConstraints(
                    nullable=field.nullable,
                    unique=(field.name,) == table.key,
                    other=["part of the key"] if field.name in table.key else [],
                ),
            )
            for field in table.schema
        ],
        constraints=dg.TableConstraints(other=[f"key: {', '.join(table.key)}"]),
    )


def table_metadata(table: Table, home: Home) -> dict[str, Any]:
    """Return what is known of a table without reading it."""
    return {
        "dagster/column_schema": column_schema(table),
        "dagster/table_name": f"{home.namespace}.{table.name}",
        "dagster/uri": str(home.iceberg if table.store == "iceberg" else home.paimon),
    }


def column_lineage(columns: Mapping[str, Sequence[tuple[Table, str]]]) -> dg.TableColumnLineage:
    """Return where a table's columns come from: for each of them the columns of other tables."""
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(dg.AssetKey(table.name), name) for table, name in sources]
            for column, sources in columns.items()
        }
    )
