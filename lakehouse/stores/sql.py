"""SQL over all tables as they are, or as they stood at a moment: DuckDB, read-only, through the manifests.

Each table is a view over the data files that one snapshot names, so that DuckDB reads only the columns and
row groups a query needs, and never a folder. Nothing is loaded when connecting. The connection may open those
files and no others, may not load extensions, and only runs statements that read.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Final, Literal, TextIO
from uuid import UUID

import duckdb
import pyarrow as pa
from pypaimon.utils.file_store_path_factory import canonical_data_file_path
from rich.console import Console
from rich.table import Table as RichTable

from lakehouse.home import Home, HomeError
from lakehouse.market.time import now_us, to_iso
from lakehouse.settings import Settings
from lakehouse.stores.hot import HotStore
from lakehouse.stores.hot_store import LATEST, HotReader, open_hot_reader
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import SEQUENCE_FIELDS, PaimonStore
from lakehouse.stores.paimon_files import entries_of
from lakehouse.stores.schemas import PRICE, TABLES, Table
from lakehouse.stores.versions import PastError, version_at

Format = Literal["table", "csv", "json"]

_ROWS_AT_ONCE = 10_000
_ANY_WIDTH = 100_000
_MULTIPLIABLE: Final = pa.decimal128(38, 8)
_SEQUENCE: Final = '"_SEQUENCE_NUMBER"'
_KINDS: Final = {
    "string": "VARCHAR",
    "date32[day]": "DATE",
    "int64": "BIGINT",
    "int32": "INTEGER",
    "bool": "BOOLEAN",
    "binary": "BLOB",
    "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
}

# A minute without a candle is filled only if no trade can have happened in it: the ids go on without a step
# from the candle before to the one after. At a gap nothing is made up.
_CANDLES_FILLED: Final = """
CREATE VIEW candles_1m_filled AS
WITH followed AS (
    SELECT *, lead(start) OVER of_product AS next_start, lead(first_trade_id) OVER of_product AS next_id
    FROM candles_1m WINDOW of_product AS (PARTITION BY product ORDER BY start)
)
SELECT * EXCLUDE (next_start, next_id), false AS is_filled FROM followed
UNION ALL BY NAME
SELECT product, CAST(minute AS DATE) AS day, minute AS start,
    close AS open, close AS high, close AS low, close, 0 AS volume, 0 AS quote_volume,
    0 AS taker_buy_volume, 0 AS taker_sell_volume, 0 AS trade_count, true AS is_complete, 0 AS revision,
    source, exchange, recorded_at, true AS is_filled
FROM followed, unnest(generate_series(
    start + INTERVAL 1 MINUTE, next_start - INTERVAL 1 MINUTE, INTERVAL 1 MINUTE)) AS minutes(minute)
WHERE next_id <= last_trade_id + 1
"""

# Rows of `gaps` overlap: a range found may be filled in parts. The ids are cut at every end of a range; of
# the rows that cover such a piece the latest says what is known of it.
_GAPS_NOW: Final = """
CREATE VIEW gaps_now AS
WITH ends AS (
    SELECT exchange, product, first_trade_id AS id FROM gaps
    UNION SELECT exchange, product, last_trade_id + 1 FROM gaps
), pieces AS (
    SELECT exchange, product, id AS first_trade_id,
        lead(id) OVER (PARTITION BY exchange, product ORDER BY id) - 1 AS last_trade_id
    FROM ends
)
SELECT pieces.product, gaps.day, pieces.first_trade_id, pieces.last_trade_id, gaps.status, gaps.found_by,
    gaps.after, gaps.before, gaps.detail, pieces.exchange, gaps.noticed_at
FROM pieces JOIN gaps ON pieces.exchange = gaps.exchange AND pieces.product = gaps.product
    AND gaps.first_trade_id <= pieces.first_trade_id AND gaps.last_trade_id >= pieces.first_trade_id
QUALIFY row_number() OVER (PARTITION BY pieces.exchange, pieces.product, pieces.first_trade_id
        ORDER BY gaps.recorded_at DESC, gaps.spine_offset DESC) = 1
"""

_GAPS_OPEN: Final = "CREATE VIEW gaps_open AS SELECT * FROM gaps_now WHERE status <> 'filled'"


def connect(
    home: Home, settings: Settings | None = None, *, as_of_us: int | None = None
) -> duckdb.DuckDBPyConnection:
    """Return a connection with a view for each table, over the snapshots of this moment or of an earlier one.

    Args:
        home: whose tables.
        settings: which hot store has `latest`, and where; the embedded one where None.
        as_of_us: the moment whose tables to read, µs UTC; now where None. A table whose state of then has
            expired fails when it is used, and says what can be had; the others can be read. So does `latest`,
            which has no past.

    Views: every table of `schemas`, `candles_1m_filled` (minutes without trades carried on, `is_filled`),
    `gaps_now` (what is known of the ids that were found missing), `gaps_open` (those of them that are not
    filled) and the hot store's `latest`. Prices and sizes of
    the tables are DECIMAL(38, 8) here, so that they can be multiplied. Use it within the grace period of
    expiry (minutes), then connect again.

    Raises:
        HomeError: nothing has been written there yet.
        PastError: `as_of_us` is in the future.
        IcebergStoreError: the catalog can't be used, or a table there has another shape.
        PaimonStoreError: a table has another shape.
    """
    if not home.folder.exists():
        raise HomeError(f"{home.root} holds no {home.namespace} data yet: start `lakehouse up` first")
    if as_of_us is not None and as_of_us > now_us():
        raise PastError(f"{to_iso(as_of_us)} is in the future: --as-of takes a moment that has been")
    connection = duckdb.connect(
        ":memory:", config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    )
    connection.execute("SET TimeZone = 'UTC'")
    allowed: list[str] = []
    with IcebergStore.open(home) as iceberg, PaimonStore.open(home) as paimon:
        stores = _Stores(iceberg, paimon)
        for table in TABLES.values():
            try:
                paths, rows = (_appended if table.store == "iceberg" else _merged)(stores, table, as_of_us)
            except PastError as error:
                paths, rows = [], _refused(table.schema, str(error))
            connection.execute(f"CREATE VIEW {table.name} AS {rows}")
            allowed += paths
    connection.execute(_CANDLES_FILLED)
    connection.execute(_GAPS_NOW)
    connection.execute(_GAPS_OPEN)
    if as_of_us is None:
        connection.register("latest", _Latest(home, settings))
    else:
        reason = "latest is the hot store's present and has no past: ask trades or quotes instead"
        connection.execute(f"CREATE VIEW latest AS {_refused(LATEST, reason)}")
    connection.execute(f"SET allowed_paths = {_list(allowed)}")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


class _Latest:
    """The hot store's newest trade and quote of each product, in Arrow's protocol: a few rows.

    The hot store is asked by the first query that names the view, so all others do without it.
    """

    _SCHEMA: Final = pa.schema([f.with_type(_MULTIPLIABLE) if f.type == PRICE else f for f in LATEST])

    def __init__(self, home: Home, settings: Settings | None) -> None:
        self._home = home
        self._settings = settings

    @cached_property
    def _rows(self) -> pa.Table:
        with self._opened() as hot:
            return hot.latest().cast(self._SCHEMA) if hot else self._SCHEMA.empty_table()

    def _opened(self) -> AbstractContextManager[HotReader | None]:
        if self._settings and self._settings.hot_store_kind == "fluss":
            return open_hot_reader(self._settings, self._home)
        return HotStore.open(self._home.hot_store) if self._home.hot_store.exists() else nullcontext()

    def __arrow_c_schema__(self) -> object:
        return self._SCHEMA.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._rows.__arrow_c_stream__(requested_schema)


@dataclass(frozen=True)
class _Stores:
    """Where the tables are read from."""

    iceberg: IcebergStore
    paimon: PaimonStore


def _appended(stores: _Stores, table: Table, as_of_us: int | None) -> tuple[list[str], str]:
    """Return an Iceberg table's data files, and the query over them.

    Raises:
        PastError: the state of that moment has expired.
    """
    store, snapshot_id = stores.iceberg, None
    if as_of_us is not None:
        version = version_at(table.name, store.versions(table), as_of_us)
        if version is None:
            return [], _no_rows(table.schema)
        snapshot_id = version.snapshot_id
    paths = [file.file_path for file in store.data_files(table, snapshot_id=snapshot_id)]
    return paths, _files(table, paths, store.field_ids(table) if store.is_evolved(table) else None)


def _files(table: Table, paths: Sequence[str], field_ids: Mapping[str, int] | None = None) -> str:
    """Return the query over data files; their columns are known by `field_ids` where names have changed."""
    if not paths:
        return _no_rows(table.schema)
    options = "hive_partitioning = false"
    if field_ids is not None:
        columns = (
            f"{field_ids[f.name]}: {{name: '{f.name}', type: '{_kind(f.type)}', default_value: NULL}}"
            for f in table.schema
        )
        options += f", schema = MAP {{{', '.join(columns)}}}"
    return f"SELECT {_columns(table)} FROM read_parquet({_list(paths)}, {options})"


def _columns(table: Table) -> str:
    # DuckDB multiplies two DECIMAL(18, 8) within 64 bits and fails on `price * size`. Wider ones it does not.
    return ", ".join(
        f'CAST("{f.name}" AS DECIMAL(38, 8)) AS "{f.name}"' if f.type == PRICE else f'"{f.name}"'
        for f in table.schema
    )


def _kind(kind: pa.DataType) -> str:
    return _KINDS.get(str(kind), str(kind).replace("decimal128", "DECIMAL"))


def _no_rows(schema: pa.Schema, condition: str = "false") -> str:
    columns = (
        f'CAST(NULL AS {_kind(_MULTIPLIABLE if f.type == PRICE else f.type)}) AS "{f.name}"' for f in schema
    )
    return f"SELECT {', '.join(columns)} WHERE {condition}"


def _refused(schema: pa.Schema, reason: str) -> str:
    """Return a view that fails with the reason when it is used."""
    return _no_rows(schema, "error('" + reason.replace("'", "''") + "')")


def _merged(stores: _Stores, table: Table, as_of_us: int | None) -> tuple[list[str], str]:
    """Return a Paimon table's data files, and the query that merges them as Paimon does.

    Of the rows with one key the one with the highest sequence field counts, of those the last written. A
    partition of one file holds each key once already. The filters that people write (on product, day and
    start) reach the files through both branches.

    Raises:
        PastError: the state of that moment has expired.
    """
    store = stores.paimon
    opened, snapshot = store.opened(table), store.newest(table)
    if as_of_us is not None:
        history = store.history(table)
        version = version_at(table.name, history.versions, as_of_us)
        snapshot = None if version is None else history.snapshots[version.snapshot_id]
    # By the schema that a file was written with, because files of Paimon know their columns by name only.
    groups: dict[tuple[object, ...], list[tuple[int, str]]] = {}
    for entry in entries_of(opened, snapshot):
        partition = tuple(entry.partition.values)
        path = canonical_data_file_path(opened, partition, entry.bucket, entry.file.file_name)
        groups.setdefault((*partition, entry.bucket), []).append((entry.file.schema_id, path))
    single = [files[0] for files in groups.values() if len(files) == 1]
    several = [file for files in groups.values() if len(files) > 1 for file in files]
    queries = []
    if single or not several:
        queries.append(f"SELECT {_columns(table)} FROM ({_written(store, table, single, '')})")
    if several:
        key = ", ".join(dict.fromkeys((*table.partition_by, *table.key)))
        queries.append(
            f"SELECT {_columns(table)} FROM ({_written(store, table, several, _SEQUENCE)}) "
            f"QUALIFY row_number() OVER (PARTITION BY {key} "
            f"ORDER BY {SEQUENCE_FIELDS[table.name]} DESC, {_SEQUENCE} DESC) = 1"
        )
    return [path for _, path in single + several], " UNION ALL ".join(queries)


def _written(store: PaimonStore, table: Table, files: Sequence[tuple[int, str]], besides: str) -> str:
    """Return the rows of files, each with the schema of its id, by the table's columns as they are now."""
    queries = []
    for schema_id in sorted({schema_id for schema_id, _ in files}):
        paths = [path for one, path in files if one == schema_id]
        names = store.names_in(table, schema_id)
        columns = ", ".join(
            f'CAST({_value(table, f.name, names[f.name])} AS {_kind(f.type)}) AS "{f.name}"'
            for f in table.schema
        )
        queries.append(
            f"SELECT {columns}{', ' + besides if besides else ''} "
            f"FROM read_parquet({_list(paths)}, hive_partitioning = false)"
        )
    return " UNION ALL ".join(queries) or _no_rows(table.schema)


def _value(table: Table, column: str, written_as: str | None) -> str:
    """Return a column of a file; `written_as` is its name there, None where the file lacks it."""
    found = "NULL" if written_as is None else f'"{written_as}"'
    told = dict(table.of_earlier_rows).get(column)
    return found if told is None else f"coalesce({found}, '{told}')"


def _list(paths: Iterable[str]) -> str:
    quoted = ("'" + path.replace("'", "''") + "'" for path in paths)
    return f"[{', '.join(quoted)}]"


@dataclass(frozen=True)
class Result:
    """A query's columns, and its rows as they are read; rows hold Python's exact types."""

    columns: list[str]
    rows: Iterator[tuple[object, ...]]


def run_query(connection: duckdb.DuckDBPyConnection, statement: str) -> Result:
    """Run one statement that reads, and return its result; rows are fetched as they are asked for.

    Raises:
        duckdb.Error: the statement is wrong, is not exactly one, or does more than read.
    """
    statements = connection.extract_statements(statement)
    if len(statements) != 1:
        raise duckdb.InvalidInputException(f"one statement at a time, not {len(statements)}")
    if statements[0].type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise duckdb.InvalidInputException("the tables are read-only here: write SELECT, SHOW or DESCRIBE")
    if statements[0].type == duckdb.StatementType.EXPLAIN and "analyze" in statement.lower():
        # EXPLAIN ANALYZE runs what it explains, be it a COPY onto a data file.
        raise duckdb.InvalidInputException("EXPLAIN ANALYZE is refused here: it would run the statement")
    cursor = connection.execute(statements[0])
    names: dict[str, int] = {}
    columns: list[str] = []
    for description in cursor.description or []:
        name = str(description[0])
        names[name] = names.get(name, 0) + 1
        columns.append(name if names[name] == 1 else f"{name}_{names[name]}")

    def rows() -> Iterator[tuple[object, ...]]:
        while batch := cursor.fetchmany(_ROWS_AT_ONCE):
            yield from batch

    return Result(columns, rows())


def query(home: Home, statement: str, style: Format, stream: TextIO) -> None:
    """Run one statement over the tables as they are now and print what it returns.

    Raises:
        HomeError: nothing has been written there yet.
        duckdb.Error: the statement is wrong, or does more than read.
    """
    with closing(connect(home)) as connection:
        render(run_query(connection, statement), style, stream)


def render(result: Result, style: Format, stream: TextIO) -> None:
    """Print a result; decimals are exact in every style.

    `csv` has a header line and an empty field for null. `json` is an array with one object a line;
    decimals are strings in it, because most readers would make floats of numbers. Times are ISO 8601,
    with `Z` where the column has a time zone (it is UTC always); bytes are text with `\\xNN` for what
    can't be printed.
    """
    if style == "csv":
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(result.columns)
        for row in result.rows:
            writer.writerow("" if value is None else _text(value) for value in row)
    elif style == "json":
        stream.write("[")
        for number, row in enumerate(result.rows):
            values = {name: _json(value) for name, value in zip(result.columns, row, strict=True)}
            stream.write(("\n" if number == 0 else ",\n") + json.dumps(values, ensure_ascii=False))
        stream.write("\n]\n")
    else:
        table = RichTable(*result.columns)
        count = 0
        for count, row in enumerate(result.rows, start=1):  # noqa: B007  # the count after the last row
            table.add_row(*("" if value is None else _text(value) for value in row))
        # As wide as the rows are: a terminal may wrap a number, but nothing may cut it.
        console = Console(file=stream, markup=False, highlight=False, emoji=False, width=_ANY_WIDTH)
        console.print(table)
        console.print(f"{count:,} {'row' if count == 1 else 'rows'}")


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(timespec="microseconds") + ("Z" if value.tzinfo else "")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return "".join(chr(b) if 32 <= b < 127 and b != 92 else f"\\x{b:02X}" for b in value)
    if isinstance(value, list | tuple | dict):
        return json.dumps(_json(value), ensure_ascii=False)
    return str(value)


def _json(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, Decimal | datetime | date | timedelta | bytes | UUID):
        return _text(value)
    return str(value)
