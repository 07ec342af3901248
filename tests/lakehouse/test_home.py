from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lakehouse.home import Home, HomeError


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
