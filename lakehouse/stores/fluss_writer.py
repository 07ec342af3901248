"""Writing to Fluss: nothing counts as written before every replica that must has acknowledged it.

One writer has one connection. After any error it is of no use any more: what was not acknowledged may be
there or not, and the connection may hang for ever. `abandon` it and open another.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Self

import fluss
import pyarrow as pa

from lakehouse.stores.fluss_connection import FlussTarget, answer, connect, store_error
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

_LAST_WORDS_SECONDS: Final = 0.25
"""Time in which abandoned writers may still call back before their event loop ends."""

Sent = Sequence[asyncio.Future[None]]
"""What was handed over by one call of `FlussWriter.send`, piece by piece."""


@contextmanager
def event_loop() -> Iterator[asyncio.Runner]:
    """Give the event loop in which writers of this thread work, one after the other.

    It outlives each of them: an abandoned one may still call back.
    """
    with asyncio.Runner() as runner:
        try:
            yield runner
        finally:
            runner.run(asyncio.sleep(_LAST_WORDS_SECONDS))


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
        self._in_flight: deque[asyncio.Future[None]] = deque()  # the newest; all before are acknowledged
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
        """Append rows to the logs; return when all are acknowledged. See `send` and `acknowledged`."""
        sent = self.send(rows)
        while not self.acknowledged(sent, within_seconds=self._target.timeout_seconds):
            pass  # each piece has a time-out of its own

    def send(self, rows: Mapping[str, pa.Table]) -> Sent:
        """Hand rows over to be appended to the logs, after those that were handed over before.

        Args:
            rows: for each log the rows to append, with exactly its columns.

        Returns:
            What to ask `acknowledged` for.

        Raises:
            FlussTimeoutError: an acknowledgement did not come in time; rows may be there or not.
            FlussStoreError: refused, or a server is down; rows may be there or not.
        """
        return self._runner.run(self._send(rows))

    async def _send(self, rows: Mapping[str, pa.Table]) -> Sent:
        sent: list[asyncio.Future[None]] = []
        for name, table in rows.items():
            for piece in table.combine_chunks().to_batches(max_chunksize=ROWS_AT_ONCE):
                if len(self._in_flight) == PIECES_IN_FLIGHT:
                    await self._in_flight.popleft()
                try:
                    handle = self._logs[name].write_arrow_batch(piece)
                except fluss.FlussError as error:
                    raise store_error(error, self._target, "writing rows") from error
                sent.append(asyncio.ensure_future(answer(handle.wait(), self._target, "writing rows")))
                self._in_flight.append(sent[-1])
                sent[-1].add_done_callback(_heard)
        return sent

    def acknowledged(self, sent: Sent, *, within_seconds: float) -> bool:
        """Tell whether all of what was sent is acknowledged, as soon as it is, or when the time is over.

        Raises:
            FlussTimeoutError: an acknowledgement did not come in time; rows may be there or not.
            FlussStoreError: refused, or a server is down; rows may be there or not.
        """
        return self._runner.run(_done(sent, within_seconds))

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


def _heard(piece: asyncio.Future[None]) -> None:
    """Take note of a failure: who waits for the piece is told, who has given up must not be."""
    if not piece.cancelled():
        piece.exception()


async def _done(sent: Sent, within_seconds: float) -> bool:
    if not sent:
        return True
    done, waiting = await asyncio.wait(sent, timeout=within_seconds, return_when=asyncio.FIRST_EXCEPTION)
    for piece in done:
        piece.result()
    return not waiting
