from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse.home import Home
from lakehouse.stores.iceberg import IcebergStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[IcebergStore]:
    with IcebergStore.open(Home(tmp_path, "simulated").create()) as opened:
        yield opened
