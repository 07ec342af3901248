"""Data files of the Iceberg tables: how rows are split, sorted, written, and read back.

The files are written with pyarrow and registered by `iceberg_commit`, instead of by `Table.append`:
pyiceberg's writer knows neither the encodings that make ids and times small nor the sort order, and
collects statistics of every column, which makes each manifest entry ten times as large.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.conversions import to_bytes
from pyiceberg.io.pyarrow import _pyarrow_to_schema_without_ids
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.table import Table as PyIcebergTable
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import LongType

from lakehouse.market.product import checked_product
from lakehouse.stores.schemas import Table

BOUNDED: Final = ("trade_id", "event_time", "first_trade_id", "last_trade_id", "spine_offset")
"""Columns whose lowest and highest value stand in the manifests."""

_EPOCH = date(1970, 1, 1)
_COMPRESSION_LEVEL = 1
_ROW_GROUP = 131_072
_LONG = LongType()
_THREADS = 2
_ENCODED = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True)
class PartitionKey:
    """What a file's rows have in common; None is what the table isn't partitioned by."""

    day: date | None
    product: str | None

    @property
    def record(self) -> Record:
        """The key as manifests hold it: the day as a number, the product as text."""
        days = None if self.day is None else (self.day - _EPOCH).days
        return Record(*(value for value in (days, self.product) if value is not None))

    @property
    def folder(self) -> str:
        """Where its files lie below the table's data folder."""
        day = None if self.day is None else f"day={self.day.isoformat()}"
        product = None if self.product is None else f"product={checked_product(self.product)}"
        return "/".join(part for part in (day, product) if part is not None)

    @classmethod
    def of(cls, data_file: DataFile) -> "PartitionKey":
        """Return the partition of a data file."""
        values = data_file.partition
        if isinstance(values[0], str):
            return cls(None, values[0])
        return cls(_EPOCH + timedelta(days=values[0]), values[1] if len(values) > 1 else None)


def iceberg_schema(table: Table) -> Schema:
    """Return a table's columns as Iceberg names them, ids counted from 1."""
    fields = [
        field.with_metadata({"doc": (field.metadata or {}).get(b"description", b"")})
        for field in table.schema
    ]
    return assign_fresh_schema_ids(_pyarrow_to_schema_without_ids(pa.schema(fields)))


def partition_spec(table: Table) -> PartitionSpec:
    """Return a table's partitioning: its columns as they are."""
    schema = iceberg_schema(table)
    return PartitionSpec(
        *(
            PartitionField(schema.find_field(name).field_id, 1000 + position, IdentityTransform(), name)
            for position, name in enumerate(table.partition_by)
        )
    )


def split_by_partition(table: Table, rows: pa.Table) -> Iterator[tuple[PartitionKey, pa.Table]]:
    """Yield each partition's rows: sorted by trade_id where there is one, else in the order given.

    Raises:
        InvalidProductError: a product that must not become part of a path.
    """
    if rows.num_rows == 0:
        return
    codes = np.zeros(rows.num_rows, dtype=np.int64)
    values: dict[str, list[Any]] = {}
    for name in table.partition_by:
        encoded = rows[name].combine_chunks().dictionary_encode()
        values[name] = encoded.dictionary.to_pylist()
        codes = codes * len(values[name]) + encoded.indices.to_numpy(zero_copy_only=False)
    for product in values.get("product", ()):
        checked_product(product)
    keys = [codes]
    if "trade_id" in table.schema.names:
        keys.insert(0, rows["trade_id"].to_numpy())
    order = np.lexsort(keys)
    if (order[1:] < order[:-1]).any():
        rows = rows.take(pa.array(order))
        codes = codes[order]
    starts = np.concatenate(([0], np.flatnonzero(np.diff(codes)) + 1))
    ends = np.append(starts[1:], len(codes))
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        code, of = int(codes[start]), {}
        for name in reversed(table.partition_by):
            code, position = divmod(code, len(values[name]))
            of[name] = values[name][position]
        yield PartitionKey(of.get("day"), of.get("product")), rows.slice(start, end - start)


def field_ids(current: PyIcebergTable) -> dict[str, int]:
    """Return the numbers by which files know the columns, whatever their names were."""
    return {field.name: field.field_id for field in current.schema().fields}


def write_files(
    table: Table, current: PyIcebergTable, parts: Sequence[tuple[PartitionKey, pa.Table]]
) -> list[DataFile]:
    """Write one file for each part and return their descriptions; none is registered."""
    if len(parts) == 1:
        return [_write_file(table, current, *parts[0])]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda part: _write_file(table, current, *part), parts))


def _write_file(table: Table, current: PyIcebergTable, key: PartitionKey, rows: pa.Table) -> DataFile:
    ids = field_ids(current)
    folder = Path(current.metadata.location) / "data" / key.folder
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{uuid.uuid4()}.parquet"
    schema = pa.schema(
        [
            pa.field(field.name, field.type, field.nullable, {"PARQUET:field_id": str(ids[field.name])})
            for field in table.schema
        ]
    )
    # Ids and times rise by small steps: as differences they take a fifth of the space, in less time.
    whole = [f.name for f in table.schema if pa.types.is_int64(f.type) or pa.types.is_timestamp(f.type)]
    texts = [f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_date(f.type)]
    pq.write_table(
        pa.Table.from_arrays(rows.columns, schema=schema),
        path,
        compression="zstd",
        compression_level=_COMPRESSION_LEVEL,
        use_dictionary=texts or False,
        column_encoding=dict.fromkeys(whole, "DELTA_BINARY_PACKED"),
        row_group_size=_ROW_GROUP,
        store_decimal_as_integer=True,
    )
    lower: dict[int, bytes] = {}
    upper: dict[int, bytes] = {}
    for name in table.schema.names:
        if name in BOUNDED:
            # Iceberg holds a long and a timestamp in a bound alike: as its 64-bit number.
            bounds = pc.min_max(rows[name].cast(pa.int64()))
            lower[ids[name]] = to_bytes(_LONG, bounds["min"].as_py())
            upper[ids[name]] = to_bytes(_LONG, bounds["max"].as_py())
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=str(path),
        file_format=FileFormat.PARQUET,
        partition=key.record,
        record_count=rows.num_rows,
        file_size_in_bytes=path.stat().st_size,
        column_sizes=None,
        value_counts=None,
        null_value_counts=None,
        nan_value_counts=None,
        lower_bounds=lower,
        upper_bounds=upper,
        key_metadata=None,
        split_offsets=None,
        equality_ids=None,
        sort_order_id=None,
    )
    file.spec_id = current.spec().spec_id  # no argument: a manifest says it for all its files
    return file


def read_files(
    table: Table,
    ids: Mapping[str, int],
    paths: Sequence[str],
    columns: Sequence[str] | None,
    product: str | None,
    *,
    day: date | None = None,
    encoded: bool = False,
) -> pa.Table:
    """Return the rows of data files, in the table's types; with `product` and `day`, only those of them.

    Args:
        table: whose files they are.
        ids: its columns' numbers, see `field_ids`; a file that lacks a column has it empty.
        paths: the files.
        columns: names; all where None.
        product: only its rows; all where None.
        day: only rows of this UTC day; all where None.
        encoded: leave texts as dictionaries, as they lie in the files.

    Raises:
        KeyError: a column that the table doesn't have.
    """
    wanted = list(table.schema.names if columns is None else columns)
    fields = [table.schema.field(name).remove_metadata() for name in wanted]
    if encoded:
        fields = [field.with_type(_ENCODED) if field.type == pa.string() else field for field in fields]
    schema = pa.schema(fields)
    texts = [field.name for field in fields if encoded and field.type == _ENCODED]
    conditions = {name: value for name, value in (("product", product), ("day", day)) if value is not None}
    read = {name: ids[name] for name in (*wanted, *conditions)}
    if len(paths) > _THREADS:
        with ThreadPoolExecutor(_THREADS) as pool:
            parts = list(pool.map(lambda path: _read_file(path, read, texts, threads=False), paths))
    else:
        parts = [_read_file(path, read, texts, threads=True) for path in paths]
    for name, value in conditions.items():
        parts = [part.filter(pc.equal(part[name], value)) for part in parts]
    return pa.concat_tables([part.select(wanted).cast(schema) for part in parts] or [schema.empty_table()])


def _read_file(path: str, columns: Mapping[str, int], texts: list[str], *, threads: bool) -> pa.Table:
    # ParquetFile, not read_table: that would take "day=…" in the path for a column.
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        names = {int(f.metadata[b"PARQUET:field_id"]): f.name for f in file.schema_arrow if f.metadata}
        there = {name: names[number] for name, number in columns.items() if number in names}
        rows = file.read(list(there.values()), use_threads=threads)
    empty = pa.nulls(rows.num_rows)
    return pa.table({name: rows[there[name]] if name in there else empty for name in columns})
