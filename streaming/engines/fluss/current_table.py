"""Keeping the table `latest` of Fluss: beside the logs, so that it holds them up never.

The logs are what Flink reads and what must not miss a row. This table only shows the present, and after
the death of a tablet server it may take no writes for a minute while the logs do.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

import fluss
import pyarrow as pa
import structlog

from lakehouse.stores.fluss_connection import (
    FlussStoreError,
    FlussTarget,
    abandon,
    answer,
    connect,
    store_error,
)
from lakehouse.stores.fluss_tables import CURRENT, path_of, read_current
from streaming.engines.fluss.current import CurrentStates, Row

_PAUSE_SECONDS: Final = 1.0
"""Between two attempts to reach the table."""

_log = structlog.get_logger()


class CurrentTable:
    """Writes the current states to `latest` in a thread of its own, with a connection of its own.

    What changes while a write is under way goes with the next one. After an error it connects anew, takes
    over what the table holds where that is newer, and writes every state.
    """

    def __init__(self, target: FlussTarget) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._states = CurrentStates()
        self._changed: dict[str, Row] = {}
        self._something = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="latest", daemon=True)

    @classmethod
    @contextmanager
    def kept(cls, target: FlussTarget) -> Iterator[Self]:
        """Keep the table for the block; at its end the last states are written if that works at once."""
        table = cls(target)
        table._thread.start()
        try:
            yield table
        finally:
            table._stopped = True
            table._something.set()
            table._thread.join()

    def take(self, trades: pa.Table | None, quotes: pa.Table | None) -> None:
        """Take in rows of `trades` and of `quotes` in the order of the log; never waits for Fluss."""
        with self._lock:
            self._changed |= {row["product"]: dict(row) for row in self._states.take(trades, quotes)}
            if self._changed:
                self._something.set()

    def newest_us(self) -> dict[str, int]:
        """Return the time of each product's latest trade, µs UTC."""
        with self._lock:
            return self._states.newest_us()

    def _run(self) -> None:
        asyncio.run(self._keep())

    async def _keep(self) -> None:
        await asyncio.to_thread(self._something.wait)  # before the first rows there are no tables either
        writer: fluss.UpsertWriter | None = None
        while not self._stopped:
            try:
                writer = await self._connected()
                await self._write_all_changes(writer)
            except FlussStoreError as error:
                if writer is not None:
                    abandon(writer)
                    writer = None
                _log.warning("the table `latest` could not be kept; connecting anew", problem=str(error))
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _connected(self) -> fluss.UpsertWriter:
        connection = await connect(self._target)
        path = path_of(self._target, CURRENT)
        table = await answer(connection.get_table(path), self._target, f"opening {CURRENT}")
        stored = await read_current(connection, table, self._target)
        with self._lock:
            self._states.learn(stored)
            self._changed = {row["product"]: dict(row) for row in self._states.all()}
        return table.new_upsert().create_writer()

    async def _write_all_changes(self, writer: fluss.UpsertWriter) -> None:
        while True:
            with self._lock:
                rows, self._changed = list(self._changed.values()), {}
                self._something.clear()
                last = self._stopped
            try:
                handles = [writer.upsert(row) for row in rows]
            except fluss.FlussError as error:
                raise store_error(error, self._target, f"writing {CURRENT}") from error
            for handle in handles:
                await answer(handle.wait(), self._target, f"writing {CURRENT}")
            if last:
                return
            await asyncio.to_thread(self._something.wait)
