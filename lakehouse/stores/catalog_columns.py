"""The columns of each table: as they were registered (`schemas`), and as they are in the catalogs now.

The catalogs are read without opening a store, which refuses a table that has other columns.
"""

from contextlib import closing
from dataclasses import dataclass

from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.schema import Schema as IcebergSchema
from pypaimon import CatalogFactory, Schema
from pypaimon.catalog.catalog_exception import TableNotExistException
from pypaimon.schema.data_types import DataField

from lakehouse.home import Home
from lakehouse.stores.iceberg_catalog import answering, open_catalog
from lakehouse.stores.iceberg_files import iceberg_schema
from lakehouse.stores.schemas import TABLES, Table

Columns = dict[str, str]
"""A table's columns: the type by name, as the store writes it, with NOT NULL where that holds."""


@dataclass(frozen=True)
class TableColumns:
    """A table's columns as they should be and as they are."""

    table: Table
    registered: Columns
    found: Columns


def table_columns(home: Home) -> list[TableColumns]:
    """Return the columns of every table that there is; one that was never created has none to compare.

    Raises:
        CatalogError: Iceberg's catalog can't be used.
    """
    paimon = CatalogFactory.create({"warehouse": str(home.paimon)})
    compared = []
    with answering(home), closing(open_catalog(home)) as iceberg:
        for table in TABLES.values():
            try:
                if table.store == "iceberg":
                    found = _of_iceberg(iceberg.load_table((home.namespace, table.name)).schema())
                else:
                    found = _of_paimon(paimon.get_table(f"{home.namespace}.{table.name}").table_schema.fields)
            except (NoSuchTableError, TableNotExistException):
                continue
            compared.append(TableColumns(table, registered_columns(table), found))
    return compared


def registered_columns(table: Table) -> Columns:
    """Return a table's columns as this version writes them."""
    if table.store == "iceberg":
        return _of_iceberg(iceberg_schema(table))
    keys = list(dict.fromkeys((*table.partition_by, *table.key)))
    schema = Schema.from_pyarrow_schema(table.schema, list(table.partition_by), keys)
    return _of_paimon(schema.fields)


def _of_iceberg(schema: IcebergSchema) -> Columns:
    return {
        field.name: f"{field.field_type}{' NOT NULL' if field.required else ''}" for field in schema.fields
    }


def _of_paimon(fields: list[DataField]) -> Columns:
    return {field.name: str(field.type) for field in fields}
