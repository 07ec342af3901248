"""Switching an SQLite file to its write-ahead log, also while others open the same file."""

import sqlite3
import time
from typing import Final

_LONGEST_WAIT_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.01
_PRIMARY_CODE: Final = 0xFF


def write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. Where it is on already this only reads.

    A connection's own timeout doesn't cover it: while another process switches, or repairs the log of one
    that was killed, SQLite answers at once that the file is locked.

    Raises:
        sqlite3.Error: the file is no database, or was locked for a minute.
    """
    deadline = time.monotonic() + _LONGEST_WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & _PRIMARY_CODE != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return
