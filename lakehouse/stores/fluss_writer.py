"""Writing to Fluss: nothing counts as written before every replica that must has acknowledged it.

One writer has one connection. After any error it is of no use any more: what was not acknowledged may be
there or not, and the connection may hang for ever. `abandon` it and open another.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Self

import fluss
import pyarrow as pa

from lakehouse.stores.fluss_connection import FlussTarget, answer, connect, settled, store_error
from lakehouse.stores.fluss_tables import (
    LOGS,
    create_tables,
    offsets,
    path_of,
)

ROWS_AT_ONCE: Final = 10_000
"""Rows handed over in one piece: a request must stay below 10 MiB, and few pieces are fast."""

PIECES_IN_FLIGHT: Final = 20
"""Pieces waiting for their acknowledgement; each takes up to 2 MiB a bucket of the client's buffer."""


@contextmanager
def event_loop() -> Iterator[asyncio.Runner]:
    """Give the event loop in which writers of this thread work, one after the other.

    It outlives each of them: an abandoned one may still call back.
    """
    with asyncio.Runner() as runner:
        try:
            yield runner
        finally:
            runner.run(settled())


class FlussWriter:
    """A writer of one namespace's tables; used by one thread."""

    def __init__(
        self,
        runner: asyncio.Runner,
        connection: fluss.FlussConnection,
        tables: Mapping[str, fluss.FlussTable],
        target: FlussTarget,
    ) -> None:
        self._runner = runner
        self._connection = connection
        self._target = target
        self._logs = {name: tables[name].new_append().create_writer() for name in LOGS}
        self.table_ids: Final = {name: int(tables[name].get_table_info().table_id) for name in LOGS}
        """A table that was dropped and created again has another one."""

    @classmethod
    def open(cls, runner: asyncio.Runner, target: FlussTarget) -> Self:
        """Connect, and create the tables where they are missing.

        Args:
            runner: the event loop, the same for all writers that follow one another: an abandoned one may
                still call back.
            target: where the tables are.

        Raises:
            FlussStoreError: Fluss did not answer, refused, or has other tables under these names.
        """

        async def opened() -> tuple[fluss.FlussConnection, dict[str, fluss.FlussTable]]:
            connection = await connect(target)
            await create_tables(connection, target)
            tables = {
                name: await answer(
                    connection.get_table(path_of(target, name)), target, f"opening the table {name}"
                )
                for name in LOGS
            }
            return connection, tables

        return cls(runner, *runner.run(opened()), target)

    def write(self, rows: Mapping[str, pa.Table]) -> None:
        """Append rows to the logs; return when all are acknowledged.

        Args:
            rows: for each log the rows to append, with exactly its columns.

        Raises:
            FlussTimeoutError: an acknowledgement did not come in time; rows may be there or not.
            FlussStoreError: refused, or a server is down; rows may be there or not.
        """
        self._runner.run(self._write(rows))

    async def _write(self, rows: Mapping[str, pa.Table]) -> None:
        pieces = [
            (name, piece)
            for name, table in rows.items()
            for piece in table.combine_chunks().to_batches(max_chunksize=ROWS_AT_ONCE)
        ]
        try:
            for start in range(0, len(pieces), PIECES_IN_FLIGHT):
                handles = [
                    self._logs[name].write_arrow_batch(piece)
                    for name, piece in pieces[start : start + PIECES_IN_FLIGHT]
                ]
                await answer(_all(handles), self._target, "writing rows")
        except fluss.FlussError as error:
            raise store_error(error, self._target, "writing rows") from error

    def ends(self) -> dict[tuple[str, int], int]:
        """Return where each bucket of each log ends: the offset its next acknowledged row will have.

        Raises:
            FlussStoreError: Fluss did not answer.
        """

        async def asked() -> dict[tuple[str, int], int]:
            latest = fluss.OffsetSpec.latest()
            found = await asyncio.gather(
                *(offsets(self._connection, self._target, name, latest) for name in LOGS)
            )
            return {
                (name, bucket): end
                for name, ends in zip(LOGS, found, strict=True)
                for bucket, end in ends.items()
            }

        return self._runner.run(asked())


async def _all(handles: Sequence[fluss.WriteResultHandle]) -> None:
    await asyncio.gather(*(handle.wait() for handle in handles))
