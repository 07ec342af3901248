"""The hot store in Fluss, asked now and then: each answer is one scan."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import fluss
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.market.columns import microseconds
from lakehouse.market.product import checked_product
from lakehouse.market.time import MINUTE_US
from lakehouse.stores.fluss_connection import FlussTarget, answer, connect
from lakehouse.stores.fluss_subscription import TradesSubscription
from lakehouse.stores.fluss_tables import CURRENT, create_tables, path_of, read_current
from lakehouse.stores.hot_store import RECENT
from lakehouse.stores.trade_window import TradeWindow

_WAIT_MS = 200


class FlussHotStore:
    """A `HotReader` that reads Fluss when it is asked; used by one thread.

    `latest` is a limit scan of one small table: milliseconds. `recent` reads the last hour of all products:
    who asks often takes a `FlussHotModel`.
    """

    def __init__(self, runner: asyncio.Runner, target: FlussTarget, window_us: int) -> None:
        self._runner = runner
        self._target = target
        self._window_us = window_us
        self._connection: fluss.FlussConnection | None = None
        self._current: fluss.FlussTable | None = None

    @classmethod
    def open(cls, target: FlussTarget, *, window_minutes: int = 60) -> Self:
        """Connect, and create the tables where there are none.

        Args:
            target: where the tables are.
            window_minutes: how much of the recent trades is shown, by the trades' own time.

        Raises:
            FlussStoreError: Fluss did not answer, or has other tables under these names.
        """
        store = cls(asyncio.Runner(), target, window_minutes * MINUTE_US)
        try:
            store._runner.run(store._connect())
        except BaseException:
            store.close()
            raise
        return store

    async def _connect(self) -> tuple[fluss.FlussConnection, fluss.FlussTable]:
        if self._connection is None or self._current is None:
            connection = await connect(self._target)
            await create_tables(connection, self._target)
            self._current = await answer(
                connection.get_table(path_of(self._target, CURRENT)), self._target, f"opening {CURRENT}"
            )
            self._connection = connection
        return self._connection, self._current

    def close(self) -> None:
        """Let go of the connection."""
        self._connection = self._current = None
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def latest(self) -> pa.Table:
        """See `HotReader.latest`."""
        return self._runner.run(self._latest())

    async def _latest(self) -> pa.Table:
        connection, table = await self._connect()
        try:
            return (await read_current(connection, table, self._target)).sort_by("product")
        except BaseException:
            self._connection = None
            raise

    def newest_us(self) -> Mapping[str, int]:
        """See `HotReader.newest_us`."""
        latest = self.latest()
        traded = latest.filter(pc.is_valid(latest["traded_at"]))
        return dict(
            zip(traded["product"].to_pylist(), microseconds(traded["traded_at"]).tolist(), strict=True)
        )

    def recent(self, product: str, *, since_us: int | None = None) -> pa.Table:
        """See `HotReader.recent`."""
        checked_product(product)
        newest_us = self.newest_us().get(product)
        if newest_us is None:
            return RECENT.empty_table()
        oldest_us = max(newest_us - self._window_us, since_us or 0)
        window = TradeWindow(self._window_us)
        self._runner.run(self._read(window, product, oldest_us))
        return window.recent(product, since_us=since_us)

    async def _read(self, window: TradeWindow, product: str, oldest_us: int) -> None:
        connection, _ = await self._connect()
        try:
            subscription = await TradesSubscription.since(connection, self._target, oldest_us)
            ends = await subscription.ends()
            while not subscription.has_reached(ends):
                rows = await subscription.poll(_WAIT_MS)
                window.take(rows.filter(pc.equal(rows["product"], product)))
        except BaseException:
            self._connection = None
            raise
