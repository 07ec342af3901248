"""Dagster's storage in SQLite, with its event logs kept open, and patient.

Dagster opens a connection anew for each event, and waits for the disk after it: of a backfill of a thousand
product-days with all their checks that is more than half the time.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Self

from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage, _event_logs_directory
from dagster._serdes import ConfigurableClassData
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import StaticPool

MOST_OPEN: Final = 8
"""Logs of so many runs stay open besides the index; a webserver reads those of many."""

_PATIENT: Final = f"?timeout={SQLITE_BUSY_TIMEOUT_SECONDS}"


class EventLogs(SqliteEventLogStorage):
    """One SQLite file for each run and one index, as Dagster lays them out, each with one kept connection.

    Dagster lets one thread at a time in, so one connection is enough. A commit reaches the operating system
    at once and the disk at SQLite's next checkpoint: a killed process loses nothing, a power cut may lose the
    newest events, and never tears the file.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        super().__init__(base_dir, inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock, self._engine(shard).begin() as connection:
            yield connection

    def _engine(self, shard: str) -> Engine:
        """Return a log's engine, made where it isn't there; only under the lock."""
        engine = self._engines.pop(shard, None)
        if engine is None:
            engine = create_engine(
                self.conn_string_for_shard(shard),
                poolclass=StaticPool,
                connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
            )
            event.listen(engine, "connect", _no_wait_for_the_disk)
            self._initdb(engine)
        self._engines[shard] = engine
        while len(self._engines) > MOST_OPEN + 1:
            _, oldest = self._engines.popitem(last=False)
            oldest.dispose()
        return engine

    def _close(self) -> None:
        with self._db_lock:
            while self._engines:
                self._engines.popitem()[1].dispose()

    def wipe(self) -> None:
        """Remove all events; the files of runs are deleted, so none may be open."""
        self._close()
        super().wipe()

    def dispose(self) -> None:
        """Stop watching and close all files."""
        super().dispose()
        self._close()


class LocalStorage(DagsterSqliteStorage):
    """Runs, events, schedules and sensors in SQLite files below `base_dir`, laid out as Dagster's own."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._event_log_storage = EventLogs(_event_logs_directory(base_dir))
        # For a lock Dagster waits as long in its events, but five seconds in these two: on a busy machine
        # sensors failed by that.
        self._run_storage._conn_string += _PATIENT
        self._schedule_storage._conn_string += _PATIENT

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """Return the storage that an instance's dagster.yaml describes."""
        return cls.from_local(inst_data=inst_data, base_dir=config_value["base_dir"])


def _no_wait_for_the_disk(connection: object, _record: object) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")  # type: ignore[attr-defined]
