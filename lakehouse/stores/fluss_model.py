"""The hot store in Fluss for readers that stay: a model in memory, kept up by subscriptions.

A thread follows the log of trades and the table of current states; asking is looking into the memory. When
a subscription fails or falls silent, it is made anew from the beginning of the window: what comes again
changes nothing.
"""

import asyncio
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

import fluss
import pyarrow as pa
import pyarrow.compute as pc
import structlog

from lakehouse.market.columns import microseconds
from lakehouse.market.time import MINUTE_US
from lakehouse.stores.fluss_connection import (
    FlussStoreError,
    FlussTarget,
    answer,
    connect,
)
from lakehouse.stores.fluss_subscription import CurrentSubscription, Row, TradesSubscription
from lakehouse.stores.fluss_tables import CURRENT, create_tables, path_of, read_current
from lakehouse.stores.hot_store import LATEST
from lakehouse.stores.trade_window import TradeWindow

WAIT_MS: Final = 100
"""How long a poll waits for rows: it comes back at once when there are some."""

_PAUSE_SECONDS: Final = 0.5

_log = structlog.get_logger()


class FlussHotModel:
    """A `HotReader` that holds the window in memory (33 bytes a trade); may be asked from any thread."""

    def __init__(self, target: FlussTarget, window_us: int) -> None:
        self._target = target
        self._window_us = window_us
        self._lock = threading.Lock()
        self._trades = TradeWindow(window_us)
        self._current: dict[str, Row] = {}
        self._caught_up = threading.Event()
        self._stopped = threading.Event()
        self._problem: FlussStoreError | None = None
        self._heard = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="fluss-model", daemon=True)

    @classmethod
    def open(cls, target: FlussTarget, *, window_minutes: int = 60) -> Self:
        """Subscribe, creating the tables where there are none, and read the window.

        Products that have not traded for longer than the window before the newest trade of all have no
        recent trades.

        Args:
            target: where the tables are.
            window_minutes: how much of the recent trades is held, by the trades' own time.

        Raises:
            FlussStoreError: Fluss did not answer, or has other tables under these names.
        """
        model = cls(target, window_minutes * MINUTE_US)
        model._thread.start()
        while not model._caught_up.wait(0.05):
            if model._problem is not None:
                model.close()
                raise model._problem
        return model

    def close(self) -> None:
        """Stop following."""
        self._stopped.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Reading

    def latest(self) -> pa.Table:
        """See `HotReader.latest`."""
        self._check()
        with self._lock:
            rows = [self._current[product] for product in sorted(self._current)]
        return pa.Table.from_pylist(rows, schema=LATEST)

    def recent(self, product: str, *, since_us: int | None = None) -> pa.Table:
        """See `HotReader.recent`."""
        self._check()
        with self._lock:
            return self._trades.recent(product, since_us=since_us)

    def newest_us(self) -> Mapping[str, int]:
        """See `HotReader.newest_us`."""
        self._check()
        with self._lock:
            return self._trades.newest_us()

    def _check(self) -> None:
        """Make sure that what is held is the present.

        Raises:
            FlussStoreError: there has been no subscription for longer than the time-out.
        """
        problem = self._problem
        if problem is not None and time.monotonic() - self._heard > self._target.timeout_seconds:
            raise problem

    # Following

    def _run(self) -> None:
        asyncio.run(self._follow())

    async def _follow(self) -> None:
        while not self._stopped.is_set():
            try:
                await self._subscribed(await connect(self._target))
            except* FlussStoreError as errors:  # of either subscription
                self._problem = _first(errors)
            if self._problem is not None and not self._stopped.is_set():
                _log.warning("following Fluss failed; subscribing anew", problem=str(self._problem))
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _subscribed(self, connection: fluss.FlussConnection) -> None:
        await create_tables(connection, self._target)
        table = await answer(
            connection.get_table(path_of(self._target, CURRENT)), self._target, f"opening {CURRENT}"
        )
        changes = await CurrentSubscription.now(connection, self._target)
        current = await read_current(connection, table, self._target)
        traded = pc.drop_null(current["traded_at"])
        newest_us = int(microseconds(traded).max()) if len(traded) else 0
        trades = await TradesSubscription.since(connection, self._target, newest_us - self._window_us)
        ends = await trades.ends()
        with self._lock:
            self._current |= {str(row["product"]): row for row in current.to_pylist()}
        async with asyncio.TaskGroup() as both:
            both.create_task(self._follow_trades(trades, ends))
            both.create_task(self._follow_changes(changes))

    async def _follow_trades(self, trades: TradesSubscription, ends: Mapping[int, int]) -> None:
        while not self._stopped.is_set():
            rows = await trades.poll(WAIT_MS)
            with self._lock:
                self._trades.take(rows)
            self._heard = time.monotonic()
            if trades.has_reached(ends):
                self._problem = None
                self._caught_up.set()

    async def _follow_changes(self, changes: CurrentSubscription) -> None:
        while not self._stopped.is_set():
            rows = await changes.poll(WAIT_MS)
            with self._lock:
                self._current |= {str(row["product"]): row for row in rows}


def _first(errors: BaseExceptionGroup[FlussStoreError]) -> FlussStoreError:
    one = errors.exceptions[0]
    return _first(one) if isinstance(one, BaseExceptionGroup) else one
