from collections.abc import Iterator
from pathlib import Path

import pytest
from replay_world import ReplayWorld

from lakehouse.home import Home
from lakehouse.settings import load_settings
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ReplayWorld]:
    """An empty home of the simulation, with its tables open."""
    home = Home(tmp_path, "simulated").create()
    settings = load_settings(home=tmp_path, commit_interval_ms=50)
    with IcebergStore.open(home) as archive, PaimonStore.open(home) as candles:
        yield ReplayWorld(settings, home, archive, candles)
