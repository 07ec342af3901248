"""Iceberg's catalog: which metadata file each table is at, in SQLite or in PostgreSQL.

In PostgreSQL it is shared with Flink, whose `JdbcCatalog` reads and writes the same rows. Its name is the
namespace's: the two programs find each other's tables only under the same name.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from pyiceberg.catalog.sql import IcebergNamespaceProperties, IcebergTables
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.schema import Schema
from pyiceberg.table import Table as PyIcebergTable
from pyiceberg.transforms import IdentityTransform
from sqlalchemy import select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from lakehouse.home import Home
from lakehouse.stores.evolution import Column, OtherColumnsError, evolution
from lakehouse.stores.iceberg_commit import IcebergStoreError, until_committed
from lakehouse.stores.iceberg_files import iceberg_schema, partition_spec
from lakehouse.stores.kept_catalog import KeptCatalog
from lakehouse.stores.schemas import TABLES, Table

_TABLE_PROPERTIES: Final = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    # A commit deletes the metadata file of the commit so many before it: no reader opens that any more.
    "write.metadata.previous-versions-max": "30",
    "write.metadata.delete-after-commit.enabled": "true",
    # Flink's own commits come between ours too.
    "commit.retry.num-retries": "20",
    "commit.retry.min-wait-ms": "20",
    "commit.retry.max-wait-ms": "1000",
}

_TO_CONNECT_SECONDS: Final = 10
_FOR_A_LOCK_SECONDS: Final = 60


class CatalogError(IcebergStoreError):
    """The catalog can't be used: unreachable, refused, or another one; the text says what to do."""


@dataclass(frozen=True)
class JdbcAddress:
    """Where Java finds the catalog."""

    url: str
    user: str
    password: SecretStr


def warehouse(home: Home) -> Path:
    """Return the folder that holds the tables' files."""
    return home.iceberg / "warehouse"


def jdbc_address(home: Home) -> JdbcAddress:
    """Return the catalog's address for Flink.

    Raises:
        CatalogError: the catalog's setting is no address, or the native cluster has left none yet.
    """
    if home.catalog is None:
        return JdbcAddress(f"jdbc:sqlite:{_sqlite_file(home)}", "", SecretStr(""))
    url = _url(home)
    return JdbcAddress(
        f"jdbc:postgresql://{url.host}:{url.port or 5432}/{url.database}",
        url.username or "",
        SecretStr(url.password or ""),
    )


def open_catalog(home: Home) -> KeptCatalog:
    """Open the catalog of a home's namespace; its database tables are created where they are absent.

    Raises:
        CatalogError: it can't be reached, refuses us, or is another home's or under another name.
    """
    if home.catalog is None:
        url = URL.create(
            "sqlite", database=str(_sqlite_file(home)), query={"timeout": str(_FOR_A_LOCK_SECONDS)}
        )
    else:
        url = _url(home).set(drivername="postgresql+psycopg2")
        url = url.update_query_dict({"connect_timeout": str(_TO_CONNECT_SECONDS)})
    with answering(home):
        catalog = KeptCatalog(
            home.namespace,
            uri=url.render_as_string(hide_password=False),
            warehouse=str(warehouse(home)),
            # A server that was started again has closed the connections that we keep.
            pool_pre_ping="true",
        )
        try:
            _check_owner(catalog, home)
            _check_choice(home)
        except BaseException:
            catalog.close()
            raise
    return catalog


def create_tables(catalog: KeptCatalog, home: Home, tables: Iterable[Table] = TABLES.values()) -> None:
    """Create those of the tables that are Iceberg's where they are absent, and evolve older ones.

    Raises:
        CatalogError: the catalog doesn't answer.
        IcebergStoreError: a table there has other columns than `schemas` says, and can't be evolved to them.
    """
    with answering(home):
        catalog.create_namespace_if_not_exists(home.namespace)
        for table in tables:
            if table.store == "iceberg":
                _create(catalog, home, table)


def _create(catalog: KeptCatalog, home: Home, table: Table) -> None:
    name = (home.namespace, table.name)
    try:
        catalog.load_table(name)  # first: creating writes a file before it looks
    except NoSuchTableError:
        location = str(warehouse(home) / table.name)
        catalog.create_table(
            name, iceberg_schema(table), location, partition_spec(table), properties=_TABLE_PROPERTIES
        )
        return
    try:
        until_committed(lambda: _evolve(catalog.load_table(name), table))
    except OtherColumnsError as error:
        raise IcebergStoreError(
            f"the table {table.name} in {home.iceberg} has other columns than this version writes: {error}; "
            "use an empty LAKEHOUSE_HOME"
        ) from None


def _evolve(found: PyIcebergTable, table: Table) -> None:
    """Give the table the columns, partitioning and properties of this version, where it has others.

    Raises:
        OtherColumnsError: that would leave old rows unreadable.
        CommitFailedException: another program committed meanwhile; nothing was changed.
    """
    schema = iceberg_schema(table)
    change = evolution(table, _columns(found.schema()), _columns(schema))
    partitions = tuple(field.name for field in found.spec().fields)
    if partitions != table.partition_by[: len(partitions)]:
        raise OtherColumnsError(f"it is partitioned by {', '.join(partitions)}")
    properties = {
        key: value for key, value in _TABLE_PROPERTIES.items() if found.properties.get(key) != value
    }
    if not change and partitions == table.partition_by and not properties:
        return
    with found.transaction() as transaction:
        with transaction.update_schema() as update:
            for old, new in change.rename:
                update.rename_column(old, new)
        with transaction.update_schema() as update:
            for name in change.widen:
                update.update_column(name, field_type=schema.find_field(name).field_type)
            for name in change.relax:
                update.make_column_optional(name)
            for name, before in change.add:
                field = schema.find_field(name)
                update.add_column(name, field.field_type, field.doc)
                if before is None:
                    update.move_first(name)
                else:
                    update.move_after(name, before)
        with transaction.update_spec() as spec:
            for name in table.partition_by[len(partitions) :]:
                spec.add_field(name, IdentityTransform(), name)
        transaction.set_properties(properties)


def _columns(schema: Schema) -> list[Column]:
    return [Column(field.name, str(field.field_type), not field.required) for field in schema.fields]


@contextmanager
def answering(home: Home) -> Iterator[None]:
    """Turn what the database driver raises within the block into one sentence.

    Raises:
        CatalogError: instead of it. What was being committed may have been committed.
    """
    try:
        yield
    except DBAPIError as error:
        # The driver's text, not SQLAlchemy's: that adds the statement and its parameters.
        raise CatalogError(_sentence(home, str(error.orig))) from None


def _sqlite_file(home: Home) -> Path:
    return home.iceberg / "catalog.db"


def _url(home: Home) -> URL:
    try:
        url = make_url(_address(home).get_secret_value())
    except (ArgumentError, ValueError):
        url = URL.create("unreadable")
    if url.get_backend_name() != "postgresql" or not url.host or not url.database:
        raise CatalogError(
            "LAKEHOUSE_ICEBERG_CATALOG takes postgresql://user:password@host:port/database, or sqlite for a "
            "file in the home"
        )
    return url


def _address(home: Home) -> SecretStr:
    assert home.catalog is not None  # asked only where there is one
    if isinstance(home.catalog, SecretStr):
        return home.catalog
    try:
        return SecretStr(home.catalog.read_text().strip())
    except OSError as error:
        raise CatalogError(
            f"the flink engine needs a catalog that Flink and Python share, and {home.catalog} names none "
            f"({error.strerror}): start `lakehouse cluster up`, or set LAKEHOUSE_ICEBERG_CATALOG"
        ) from None


def _sentence(home: Home, said: str) -> str:
    reason = " ".join(said.split())[:300]
    if home.catalog is None:
        return (
            f"Iceberg's catalog {_sqlite_file(home)} can't be used ({reason}): is its disk full or damaged?"
        )
    url = _url(home)
    place = f"Iceberg's catalog at {url.host}:{url.port or 5432}"
    if "password authentication failed" in said or "no password supplied" in said:
        return f"{place} refuses the user {url.username}: check the password in LAKEHOUSE_ICEBERG_CATALOG"
    if "does not exist" in said and "database" in said:
        return f"{place} has no database {url.database}: create it, or correct LAKEHOUSE_ICEBERG_CATALOG"
    if "could not translate" in said or "connection to server" in said:
        return (
            f"{place} can't be reached: start it (`lakehouse cluster up` starts the native one), or correct "
            "LAKEHOUSE_ICEBERG_CATALOG"
        )
    secret = url.password
    return f"{place} failed ({reason.replace(secret, '…') if secret else reason}): see PostgreSQL's log"


def _check_owner(catalog: KeptCatalog, home: Home) -> None:
    """Refuse a database in which the namespace's tables are another home's, or under another name."""
    place = _sqlite_file(home) if home.catalog is None else f"the database {_url(home).database}"
    tables, spaces = IcebergTables, IcebergNamespaceProperties
    with catalog.engine.connect() as connection:
        names = set(
            connection.scalars(
                select(tables.catalog_name)
                .where(tables.table_namespace == home.namespace)
                .union(select(spaces.catalog_name).where(spaces.namespace == home.namespace))
            )
        )
        locations = connection.scalars(
            select(tables.metadata_location).where(
                tables.catalog_name == home.namespace, tables.table_namespace == home.namespace
            )
        ).all()
    if others := sorted(names - {home.namespace}):
        raise CatalogError(
            f"{place} holds {home.namespace} in a catalog called {others[0]}, not {home.namespace}: give "
            "that catalog this name, or use an empty database"
        )
    folder = str(warehouse(home))
    for location in locations:
        path = (location or "").removeprefix("file:")
        if not Path(path).is_relative_to(folder):
            raise CatalogError(
                f"{place} holds the tables of another home, with files such as {path}, not in {folder}: give "
                "each home a database of its own"
            )


def _check_choice(home: Home) -> None:
    """Refuse a second catalog for the same files: each would take the other's for left over."""
    chosen = "sqlite" if home.catalog is None else f"postgresql {_url(home).database}"
    first = home.settled("iceberg.catalog", chosen)
    if first != chosen:
        raise CatalogError(
            f"the tables in {home.iceberg} are in the catalog {first!r}, not in {chosen!r}: choose that "
            "again (LAKEHOUSE_ICEBERG_CATALOG, LAKEHOUSE_PROFILE), or use an empty LAKEHOUSE_HOME"
        )
