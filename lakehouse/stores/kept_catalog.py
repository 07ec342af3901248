"""Iceberg's catalog in a database, which reads a table's metadata file once.

A commit costs the same whether ten or hundreds of snapshots are kept, or nearly: pyiceberg reads and parses
the metadata anew for each commit, and copies every snapshot in it. A metadata file never changes, and
pyiceberg's models are frozen.
"""

from typing import Any, Self

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.table import CommitTableResponse
from pyiceberg.table import Table as PyIcebergTable
from pyiceberg.table.metadata import TableMetadata, TableMetadataV2
from pyiceberg.table.update import TableRequirement, TableUpdate
from pyiceberg.typedef import Identifier
from sqlalchemy import select


class SharedMetadata(TableMetadataV2):
    """Metadata of which a deep copy shares its parts: none of them is ever changed in place."""

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self.model_copy()


class KeptCatalog(SqlCatalog):
    """Keeps each table as it was loaded or committed last, for as long as the database names that file."""

    def __init__(self, name: str, **properties: str) -> None:
        super().__init__(name, **properties)
        self._kept: dict[Identifier, PyIcebergTable] = {}

    def load_table(self, identifier: str | Identifier) -> PyIcebergTable:
        """Return the table as the database has it now.

        Raises:
            NoSuchTableError: there is none.
        """
        name = Catalog.identifier_to_tuple(identifier)
        kept = self._kept.get(name)
        if kept is not None and kept.metadata_location == self._location(name):
            return kept
        loaded = super().load_table(identifier)
        return self._keep(loaded, loaded.metadata, loaded.metadata_location)

    def commit_table(
        self,
        table: PyIcebergTable,
        requirements: tuple[TableRequirement, ...],
        updates: tuple[TableUpdate, ...],
    ) -> CommitTableResponse:
        """Commit updates to a table.

        Raises:
            CommitFailedException: a requirement doesn't hold, or another program came between.
        """
        response = super().commit_table(table, requirements, updates)
        self._keep(table, response.metadata, response.metadata_location)
        return response

    def _keep(self, table: PyIcebergTable, metadata: TableMetadata, location: str) -> PyIcebergTable:
        if isinstance(metadata, TableMetadataV2):
            metadata = SharedMetadata.model_construct(**dict(metadata))
        kept = PyIcebergTable(table.name(), metadata, location, table.io, self)
        self._kept[table.name()] = kept
        return kept

    def _location(self, name: Identifier) -> str | None:
        with self.engine.connect() as connection:
            return connection.execute(
                select(IcebergTables.metadata_location).where(
                    IcebergTables.catalog_name == self.name,
                    IcebergTables.table_namespace == Catalog.namespace_to_string(name[:-1]),
                    IcebergTables.table_name == name[-1],
                )
            ).scalar_one_or_none()
