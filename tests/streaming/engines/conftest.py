"""A home with a real log and real stores in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse.home import Home
from streaming.spine.sqlite import SqliteSpine


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, "simulated").create()


@pytest.fixture
def spine(home: Home) -> Iterator[SqliteSpine]:
    with SqliteSpine.open(home.spine) as opened:
        yield opened
