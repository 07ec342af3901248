"""Opening an SQLite file while another process is still making it."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lakehouse.stores.hot import HotStore
from lakehouse.stores.write_ahead import write_ahead
from streaming.spine.sqlite import SqliteSpine


@pytest.mark.parametrize("open_file", [SqliteSpine.open, HotStore.open], ids=["spine", "hot store"])
def test_opening_waits_for_whoever_is_making_the_file(
    tmp_path: Path, open_file: Callable[[Path], object]
) -> None:
    path = tmp_path / "made.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE half_made (x)")
    threading.Timer(0.3, other.execute, ["COMMIT"]).start()
    opened = open_file(path)
    assert isinstance(opened, SqliteSpine | HotStore)
    opened.close()
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_file_that_is_no_database_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_bytes(b"this is no database, and it is long enough to be looked at" * 20)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        write_ahead(sqlite3.connect(path))
