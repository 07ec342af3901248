"""Following tables of Fluss: from a place on, bucket by bucket, and noticing when nothing comes any more."""

import time
from collections.abc import Mapping
from typing import Final, Self

import fluss
import pyarrow as pa

from lakehouse.market.time import now_us
from lakehouse.stores.fluss_connection import FlussTarget, FlussTimeoutError, answer
from lakehouse.stores.fluss_tables import COLUMNS, CURRENT, TRADES, offsets, path_of

Row = dict[str, object]

READ: Final = pa.schema(
    COLUMNS[TRADES].field(name)
    for name in ("product", "trade_id", "event_time", "price", "size", "taker_side")
).remove_metadata()
"""The columns of `trades` that are read."""

_CLOCKS_APART_US: Final = 60_000_000
"""How far the clocks of an exchange, of ours and of Fluss may be apart."""

_CHANGED: Final = (fluss.ChangeType.Insert, fluss.ChangeType.UpdateAfter)


class _Place:
    """How far the buckets of a table were read, and when something came last."""

    def __init__(
        self, connection: fluss.FlussConnection, target: FlussTarget, name: str, start: Mapping[int, int]
    ) -> None:
        self._connection = connection
        self._target = target
        self._name = name
        self._next = dict(start)
        self._heard = time.monotonic()

    def read_to(self, bucket: int, last_offset: int) -> None:
        self._next[bucket] = last_offset + 1
        self._heard = time.monotonic()

    async def ends(self) -> dict[int, int]:
        return await offsets(self._connection, self._target, self._name, fluss.OffsetSpec.latest())

    def has_reached(self, ends: Mapping[int, int]) -> bool:
        return all(self._next[bucket] >= end for bucket, end in ends.items())

    async def check_silence(self) -> None:
        # A subscription may fall silent without an error: after the death of a tablet server, and for ever
        # where the log was truncated to before our place.
        if time.monotonic() - self._heard < self._target.timeout_seconds / 2:
            return
        ends = await self.ends()
        if ends != self._next:
            raise FlussTimeoutError(
                f"the subscription to {self._name} of Fluss at {self._target.address} is silent at "
                f"{self._next} while the table ends at {ends}: subscribe anew"
            )
        self._heard = time.monotonic()


class TradesSubscription:
    """Follows the log `trades`; used by one event loop."""

    def __init__(self, place: _Place, scanner: fluss.LogScanner, target: FlussTarget) -> None:
        self._place = place
        self._scanner = scanner
        self._target = target

    @classmethod
    async def since(cls, connection: fluss.FlussConnection, target: FlussTarget, since_us: int) -> Self:
        """Subscribe to the rows that came into Fluss since a time, µs UTC, and some before it.

        A trade comes in after it happened, so all trades since that time are among them.

        Raises:
            FlussStoreError: Fluss did not answer.
        """
        since_us = max(min(since_us, now_us()) - _CLOCKS_APART_US, 0)
        spec = fluss.OffsetSpec.timestamp(since_us // 1000)
        start = await offsets(connection, target, TRADES, spec)
        what = f"subscribing to {TRADES}"
        table = await answer(connection.get_table(path_of(target, TRADES)), target, what)
        scan = table.new_scan().project_by_name(READ.names)
        scanner = await answer(scan.create_record_batch_log_scanner(), target, what)
        scanner.subscribe_buckets(start)
        return cls(_Place(connection, target, TRADES, start), scanner, target)

    async def poll(self, wait_ms: int) -> pa.Table:
        """Return the rows that came next, waiting for them so long at most: columns `READ`.

        Raises:
            FlussTimeoutError: the log goes on, or ends before our place, and nothing comes.
            FlussStoreError: Fluss did not answer. Subscribe anew after any error.
        """
        request = self._scanner.poll_record_batch(wait_ms)
        batches = await answer(request, self._target, f"following {TRADES}")
        for batch in batches:
            self._place.read_to(batch.bucket.bucket_id, batch.last_offset)
        if not batches:
            await self._place.check_silence()
        parts = [pa.Table.from_batches([batch.batch]).cast(READ) for batch in batches]
        return pa.concat_tables([READ.empty_table(), *parts])

    async def ends(self) -> dict[int, int]:
        """Return where each bucket ends now.

        Raises:
            FlussStoreError: Fluss did not answer.
        """
        return await self._place.ends()

    def has_reached(self, ends: Mapping[int, int]) -> bool:
        """Tell whether every bucket was read up to `ends`."""
        return self._place.has_reached(ends)


class CurrentSubscription:
    """Follows the table `latest` from now on; used by one event loop."""

    def __init__(self, place: _Place, scanner: fluss.LogScanner, target: FlussTarget) -> None:
        self._place = place
        self._scanner = scanner
        self._target = target

    @classmethod
    async def now(cls, connection: fluss.FlussConnection, target: FlussTarget) -> Self:
        """Subscribe to the changes from now on.

        Raises:
            FlussStoreError: Fluss did not answer.
        """
        start = await offsets(connection, target, CURRENT, fluss.OffsetSpec.latest())
        what = f"subscribing to {CURRENT}"
        table = await answer(connection.get_table(path_of(target, CURRENT)), target, what)
        scanner = await answer(table.new_scan().create_log_scanner(), target, what)
        scanner.subscribe_buckets(start)
        return cls(_Place(connection, target, CURRENT, start), scanner, target)

    async def poll(self, wait_ms: int) -> list[Row]:
        """Return the rows that were replaced next, as they are now, in the order of their replacement.

        Raises:
            FlussTimeoutError: the table changes and nothing comes.
            FlussStoreError: Fluss did not answer. Subscribe anew after any error.
        """
        found = await answer(self._scanner.poll(wait_ms), self._target, f"following {CURRENT}")
        rows = []
        for bucket, records in found.items():
            self._place.read_to(bucket.bucket_id, records[-1].offset)
            rows += [record.row for record in records if record.change_type in _CHANGED]
        if found.is_empty():
            await self._place.check_silence()
        return rows
