"""Iceberg's catalog in PostgreSQL: found, refused in one sentence, lost and found again."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import PostgresServer, postgres_server
from pydantic import SecretStr
from pyiceberg.catalog.sql import SqlCatalog
from sqlalchemy.engine import make_url
from table_rows import make_trades
from two_writers import FULL, SAMPLE, check_that_all_is_there, write_beside

from lakehouse.home import Home, home_of
from lakehouse.settings import load_settings
from lakehouse.stores import sql
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.iceberg_catalog import CatalogError, jdbc_address
from lakehouse.stores.schemas import TRADES


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        yield running


@pytest.fixture
def catalog(postgres: PostgresServer) -> SecretStr:
    return postgres.new_database()


@pytest.fixture
def home(tmp_path: Path, catalog: SecretStr) -> Home:
    settings = load_settings(home=tmp_path / "home", iceberg_catalog=catalog)
    return home_of(settings, namespace="simulated").create()


def other_address(address: SecretStr, **parts: object) -> SecretStr:
    changed = make_url(address.get_secret_value()).set(**parts)  # type: ignore[arg-type]
    return SecretStr(changed.render_as_string(hide_password=False))


def another_program(address: SecretStr, name: str) -> SqlCatalog:
    return SqlCatalog(name, uri=other_address(address, drivername="postgresql+psycopg2").get_secret_value())


def test_tables_are_found_again_and_by_every_reader(home: Home) -> None:
    with IcebergStore.open(home) as store:
        store.append(TRADES, make_trades([1, 2]), offsets={0: 3})
    with IcebergStore.open(home) as store:
        assert store.offsets(TRADES) == {0: 3}
    assert sql.connect(home).execute("SELECT count(*) FROM trades").fetchone() == (2,)
    assert not list(home.root.rglob("catalog.db"))


def test_another_program_finds_the_tables_under_the_namespace(home: Home, catalog: SecretStr) -> None:
    with IcebergStore.open(home) as store:
        store.append(TRADES, make_trades([1]))
        other = another_program(catalog, "simulated")
        other.load_table("simulated.trades").append(make_trades([2]))
        assert store.scan(TRADES).num_rows == 2
    address = make_url(catalog.get_secret_value())
    found = jdbc_address(home)
    assert found.url == f"jdbc:postgresql://127.0.0.1:{address.port}/{address.database}"
    assert (found.user, found.password.get_secret_value()) == (address.username, address.password)


def test_no_password_stands_in_a_text(
    home: Home, catalog: SecretStr, caplog: pytest.LogCaptureFixture
) -> None:
    password = str(make_url(catalog.get_secret_value()).password)
    assert len(password) > 20
    with caplog.at_level(logging.DEBUG), IcebergStore.open(home) as store:
        store.append(TRADES, make_trades([1]))
        table = store.current(TRADES)
        texts = [repr(one) for one in (home, store, table, table.catalog, table.metadata, jdbc_address(home))]
    assert all(password not in text for text in [*texts, caplog.text])


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"password": "not-the-password"}, r"refuses the user lakehouse: check the password"),
        ({"password": ""}, r"refuses the user lakehouse: check the password"),
        ({"port": 1}, r"127\.0\.0\.1:1 can't be reached"),
        ({"host": "no-such-host.invalid"}, r"no-such-host\.invalid:\d+ can't be reached"),
        ({"database": "not_there"}, r"has no database not_there"),
        ({"drivername": "mysql"}, r"takes postgresql://user:password@host:port/database"),
        ({"database": ""}, r"takes postgresql://user:password@host:port/database"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_address_ends_in_one_sentence(
    tmp_path: Path, catalog: SecretStr, parts: dict[str, object], says: str
) -> None:
    wrong = other_address(catalog, **parts)
    home = Home(tmp_path, "simulated", wrong).create()
    with pytest.raises(CatalogError, match=says) as caught:
        IcebergStore.open(home)
    password = make_url(wrong.get_secret_value()).password
    assert not password or password not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (home.iceberg / "warehouse").exists()


def test_a_text_that_is_no_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    home = Home(tmp_path, "simulated", SecretStr("hunter2 at the database")).create()
    with pytest.raises(CatalogError, match="takes postgresql://") as caught:
        IcebergStore.open(home)
    assert "hunter2" not in str(caught.value)


def test_a_catalog_of_another_name_is_refused(home: Home, catalog: SecretStr) -> None:
    another_program(catalog, "lake").create_namespace("simulated")
    with pytest.raises(CatalogError, match="in a catalog called lake, not simulated: give that catalog"):
        IcebergStore.open(home)


def test_another_home_s_catalog_is_refused_and_left_alone(home: Home, tmp_path: Path) -> None:
    with IcebergStore.open(home) as store:
        store.append(TRADES, make_trades([1]))
    with pytest.raises(CatalogError, match=r"tables of another home, with files such as .*/home/"):
        IcebergStore.open(Home(tmp_path / "second", "simulated", home.catalog).create())
    with IcebergStore.open(home) as store:
        assert store.scan(TRADES).num_rows == 1


def test_the_files_of_a_home_are_in_one_catalog(home: Home, postgres: PostgresServer) -> None:
    with IcebergStore.open(home) as store:
        store.append(TRADES, make_trades([1]))
    with pytest.raises(CatalogError, match=r"in the catalog 'postgresql test_\w+', not in 'sqlite': choose"):
        IcebergStore.open(Home(home.root, "simulated"))
    other = Home(home.root, "simulated", postgres.new_database())
    with pytest.raises(CatalogError, match=r"not in 'postgresql test_"):
        IcebergStore.open(other)
    with IcebergStore.open(home) as store:
        assert store.scan(TRADES).num_rows == 1


def test_both_namespaces_of_a_home_share_a_database(home: Home) -> None:
    market = Home(home.root, "market", home.catalog).create()
    with IcebergStore.open(home) as simulated, IcebergStore.open(market) as real:
        simulated.append(TRADES, make_trades([1]))
        assert real.snapshot_id(TRADES) is None


def test_a_server_that_is_killed_is_found_again_by_the_same_store(
    home: Home, postgres: PostgresServer
) -> None:
    with IcebergStore.open(home) as store:
        store.append(TRADES, make_trades([1]))
        postgres.kill()
        try:
            with pytest.raises(CatalogError, match=r"can't be reached|failed"):
                store.append(TRADES, make_trades([2]))
        finally:
            postgres.start()
        store.append(TRADES, make_trades([3]))
        assert sorted(store.scan(TRADES)["trade_id"].to_pylist()) == [1, 3]


def test_commits_beside_another_program_are_exact(home: Home, request: pytest.FixtureRequest) -> None:
    commits = FULL if request.config.getoption("--full") else SAMPLE
    write_beside(home, int(request.config.getoption("--seed")), *commits)
    check_that_all_is_there(home, *commits)
