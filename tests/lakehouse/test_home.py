from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from lakehouse.home import Engine, Home, HomeError, home_of, native_catalog
from lakehouse.settings import load_settings
from lakehouse.stores.iceberg_catalog import CatalogError, jdbc_address


def test_a_home_keeps_its_name_and_another_in_its_place_has_another(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "market").create()
    assert home.shared_name.startswith("market_")
    assert Home(home.root, "market").create().shared_name == home.shared_name
    assert Home(home.root, "simulated").create().shared_name != home.shared_name
    home.root.rename(tmp_path / "moved")
    assert Home(tmp_path / "moved", "market").shared_name == Home(tmp_path / "moved", "market").shared_name
    assert Home(home.root, "market").create().shared_name != Home(tmp_path / "moved", "market").shared_name


def test_processes_that_make_a_home_at_once_agree_on_its_name(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(lambda _: Home(tmp_path, "market").create().shared_name, range(64)))
    assert len(names) == 1
    assert sorted(path.name for path in (tmp_path / "market").glob("identity*")) == ["identity"]


def test_a_home_that_was_not_made_has_no_name(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="lakehouse up"):
        _ = Home(tmp_path, "market").shared_name


def test_a_home_is_written_by_one_engine(tmp_path: Path) -> None:
    home = Home(tmp_path, "market").create()
    home.claim("flink")
    home.claim("flink")
    with pytest.raises(HomeError, match="by the flink engine: set LAKEHOUSE_ENGINE=flink, or use an empty"):
        home.claim("embedded")
    Home(tmp_path, "simulated").create().claim("embedded")


def test_one_of_two_engines_that_come_at_once_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path, "market").create()

    def claimed(engine: Engine) -> bool:
        try:
            home.claim(engine)
        except HomeError:
            return False
        return True

    engines: list[Engine] = ["embedded", "flink"] * 16
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(claimed, engines))
    winners = {engine for engine, won in zip(engines, results, strict=True) if won}
    assert len(winners) == 1
    assert sum(results) == 16


def test_the_flink_engine_finds_the_catalog_of_the_native_cluster(tmp_path: Path) -> None:
    # Before the cluster's first start there is a home already: `lakehouse up` prepares it, then starts that.
    home = home_of(load_settings(home=tmp_path, profile="cluster"), namespace="simulated").create()
    home.claim("flink")
    with pytest.raises(CatalogError, match=r"names none \(No such file.*lakehouse cluster up"):
        jdbc_address(home)
    native_catalog(tmp_path).parent.mkdir()
    native_catalog(tmp_path).write_text("postgresql://lakehouse:hunter2@127.0.0.1:5433/iceberg\n")
    assert jdbc_address(home).url == "jdbc:postgresql://127.0.0.1:5433/iceberg"
    assert jdbc_address(home).password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(home)


def test_the_catalog_is_the_one_that_is_set(tmp_path: Path) -> None:
    chosen = SecretStr("postgresql://a:b@c/d")
    assert home_of(load_settings(home=tmp_path)).catalog is None
    assert home_of(load_settings(home=tmp_path, iceberg_catalog=chosen)).catalog == chosen
    assert home_of(load_settings(home=tmp_path, profile="cluster", iceberg_catalog="sqlite")).catalog is None
