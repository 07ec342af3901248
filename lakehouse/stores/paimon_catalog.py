"""Tables of Paimon: created where they are absent, evolved where an earlier version made them."""

from collections.abc import Sequence

from pypaimon import Schema
from pypaimon.catalog.catalog import Catalog
from pypaimon.schema.data_types import DataField
from pypaimon.schema.schema_change import Move, SchemaChange
from pypaimon.schema.table_schema import TableSchema
from pypaimon.table.file_store_table import FileStoreTable

from lakehouse.home import Home
from lakehouse.stores.evolution import Column, OtherColumnsError, evolution
from lakehouse.stores.paimon_files import PaimonStoreError
from lakehouse.stores.schemas import Table


def created_table(catalog: Catalog, home: Home, table: Table, sequence_field: str) -> FileStoreTable:
    """Return a table with the columns of this version. Only one process at a time may call it: hold a lock.

    Args:
        catalog: the warehouse, with the namespace's database in it.
        home: whose table.
        table: its definition.
        sequence_field: of two rows with one key the one with the larger value wins.

    Raises:
        PaimonStoreError: the table there has other columns and can't be evolved to these.
    """
    name = f"{home.namespace}.{table.name}"
    schema = Schema.from_pyarrow_schema(
        table.schema,
        partition_keys=list(table.partition_by),
        primary_keys=list(dict.fromkeys((*table.partition_by, *table.key))),
        options={
            "bucket": "1",
            "merge-engine": "deduplicate",
            "sequence.field": sequence_field,
            "file.format": "parquet",
            "write.native.enabled": "true",
            # A commit may only move properties.
            "snapshot.ignore-empty-commit": "false",
            # A row is only ever replaced. Flink takes one back before it writes it again.
            "ignore-delete": "true",
        },
        comment=table.description,
    )
    catalog.create_table(name, schema, True)
    found = catalog.get_table(name)
    try:
        changes = _changes(table, found.table_schema, schema)
    except OtherColumnsError as error:
        raise PaimonStoreError(
            f"the table {table.name} in {home.paimon} has other columns than this version writes: {error}; "
            "use an empty LAKEHOUSE_HOME"
        ) from None
    if changes:
        catalog.alter_table(name, changes)
        found = catalog.get_table(name)
    return found


def _changes(table: Table, there: TableSchema, wanted: Schema) -> list[SchemaChange]:
    """Return what makes the columns that are there those that are wanted; Paimon's partitions never change.

    Raises:
        OtherColumnsError: that would leave old rows unreadable.
    """
    if tuple(there.partition_keys) != table.partition_by:
        raise OtherColumnsError(f"it is partitioned by {', '.join(there.partition_keys)}")
    change = evolution(table, _columns(there.fields), _columns(wanted.fields))
    fields = {field.name: field for field in wanted.fields}
    changes = [SchemaChange.rename_column(old, new) for old, new in change.rename]
    for name in change.widen:
        changes.append(SchemaChange.update_column_type(name, fields[name].type, keep_nullability=True))
    changes += [SchemaChange.update_column_nullability(name, True) for name in change.relax]
    for name, before in change.add:
        move = Move.first(name) if before is None else Move.after(name, before)
        changes.append(SchemaChange.add_column(name, fields[name].type, fields[name].description, move))
    return changes


def _columns(fields: Sequence[DataField]) -> list[Column]:
    return [
        Column(field.name, str(field.type).removesuffix(" NOT NULL"), field.type.nullable) for field in fields
    ]
