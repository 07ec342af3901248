"""The hot store in one SQLite file: the latest of each product, and its recent trades.

Everything here can be made again from the log, so nothing waits for the disk: `synchronous=NORMAL` in WAL
mode loses the last moments in a power cut, with the offsets that say so, and never damages the file.
Numbers are scaled integers inside and decimals in what is read. There is one writer; readers don't block it.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import numpy as np
import pyarrow as pa

from lakehouse.market.columns import decimals, times
from lakehouse.market.exact import SCALE, unscaled
from lakehouse.market.product import checked_product
from lakehouse.market.time import MINUTE_US, SECOND_US, to_datetime
from lakehouse.market.trade import Exchange, Side
from lakehouse.market.trade_columns import TradeColumns
from lakehouse.stores.hot_store import LATEST, RECENT, HotStoreError
from lakehouse.stores.schemas import PRICE
from lakehouse.stores.write_ahead import write_ahead

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS products (code INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS latest_trade (
    product INTEGER PRIMARY KEY, exchange INTEGER NOT NULL, trade_id INTEGER NOT NULL, price INTEGER NOT NULL,
    size INTEGER NOT NULL, side INTEGER NOT NULL, event_us INTEGER NOT NULL, recorded_us INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS latest_quote (
    product INTEGER PRIMARY KEY, exchange INTEGER NOT NULL, bid INTEGER NOT NULL, bid_size INTEGER NOT NULL,
    ask INTEGER NOT NULL, ask_size INTEGER NOT NULL, imbalance INTEGER, event_us INTEGER NOT NULL,
    recorded_us INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS recent_trades (
    product INTEGER NOT NULL, trade_id INTEGER NOT NULL, event_us INTEGER NOT NULL, price INTEGER NOT NULL,
    size INTEGER NOT NULL, side INTEGER NOT NULL, PRIMARY KEY (product, trade_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS offsets (
    topic TEXT NOT NULL, number INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, number)) WITHOUT ROWID;
"""

_LATEST_TRADE: Final = """
INSERT INTO latest_trade VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (product) DO UPDATE SET
    exchange = excluded.exchange, trade_id = excluded.trade_id, price = excluded.price, size = excluded.size,
    side = excluded.side, event_us = excluded.event_us, recorded_us = excluded.recorded_us
WHERE excluded.trade_id > latest_trade.trade_id
"""
_ALL_LATEST: Final = """
SELECT p.name, coalesce(t.exchange, q.exchange), t.trade_id, t.price, t.size, t.side, t.event_us,
    t.recorded_us, q.bid, q.bid_size, q.ask, q.ask_size, q.imbalance, q.event_us, q.recorded_us
FROM products p LEFT JOIN latest_trade t ON t.product = p.code LEFT JOIN latest_quote q ON q.product = p.code
ORDER BY p.name
"""
# Ids rise with time but for a few, so the trades to drop are those before the first that stays: a walk over
# what is deleted, without an index by time that every insert would pay for.
_PRUNE: Final = """
DELETE FROM recent_trades WHERE product = ?1 AND trade_id < (
    SELECT trade_id FROM recent_trades WHERE product = ?1 AND event_us >= ?2 ORDER BY trade_id LIMIT 1)
"""
_PRUNE_EVERY_US: Final = 10 * SECOND_US


class TopOfBook(NamedTuple):
    """The newest quote of a product; prices, sizes and imbalance scaled by 10⁸, times in µs UTC."""

    product: str
    exchange: int
    bid: int
    bid_size: int
    ask: int
    ask_size: int
    imbalance: int | None
    event_us: int
    recorded_us: int


class HotStore:
    """One namespace's hot store; open it in as many processes as needed, write in one."""

    def __init__(self, connection: sqlite3.Connection, window_us: int) -> None:
        self._connection = connection
        self._window_us = window_us
        self._codes: dict[str, int] = dict(connection.execute("SELECT name, code FROM products"))
        rows = connection.execute(
            "SELECT p.name, t.event_us FROM products p JOIN latest_trade t ON t.product = p.code"
        )
        self._newest_us: dict[str, int] = dict(rows)
        self._pruned_us: dict[str, int] = {}

    @classmethod
    def open(cls, path: Path, *, window_minutes: int = 60) -> Self:
        """Open the store, creating it where there is none.

        Args:
            path: its file.
            window_minutes: how much of the recent trades stays, by the trades' own time.

        Raises:
            HotStoreError: the file can't be opened.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
            write_ahead(connection)
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint=4000")
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            return cls(connection, window_minutes * MINUTE_US)
        except (sqlite3.Error, OSError) as error:
            raise HotStoreError(
                f"the hot store {path} can't be opened ({error}): delete it, it is made again from the log"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Writing

    def apply(
        self,
        trades: Iterable[TradeColumns],
        quotes: Iterable[TopOfBook],
        offsets: Mapping[tuple[str, int], int],
    ) -> None:
        """Take in trades and quotes and move the offsets of the log, in one transaction.

        The latest trade is the one with the highest trade_id, so it never goes back; a trade that is there
        already, or older than the window, changes nothing. The latest quote is the last one given: the log
        has them in the order in which they were seen, and not every exchange says when that was.

        Args:
            trades: batches, in any order.
            quotes: in the order of the log.
            offsets: next offset by topic and partition number.

        Raises:
            HotStoreError: nothing was taken in.
        """
        newest_us = dict(self._newest_us)
        with self._transaction():
            for batch in trades:
                self._apply_trades(batch, newest_us)
            self._connection.executemany(
                "INSERT OR REPLACE INTO latest_quote VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(self._code(quote.product), *quote[1:]) for quote in quotes],
            )
            for product, event_us in newest_us.items():
                self._prune(product, event_us - self._window_us)
            self._connection.executemany(
                "INSERT OR REPLACE INTO offsets VALUES (?, ?, ?)",
                [(topic, number, offset) for (topic, number), offset in offsets.items()],
            )
        self._newest_us = newest_us

    def _apply_trades(self, batch: TradeColumns, newest_us: dict[str, int]) -> None:
        codes = np.array([self._code(product) for product in batch.products], dtype=np.int64)
        oldest_us = np.zeros(len(batch.products), dtype=np.int64)
        for i, product in enumerate(batch.products):
            of_product = np.flatnonzero(batch.product == i)
            if len(of_product) == 0:
                continue
            newest = max(int(batch.event_us[of_product].max()), newest_us.get(product, 0))
            newest_us[product] = newest
            oldest_us[i] = newest - self._window_us
            last = int(of_product[batch.trade_id[of_product].argmax()])
            columns = (batch.exchange, batch.trade_id, batch.price, batch.size)
            side = Side.BUY if batch.taker_buys[last] else Side.SELL
            times_us = (int(batch.event_us[last]), int(batch.recorded_us[last]))
            row = (int(codes[i]), *(int(column[last]) for column in columns), int(side), *times_us)
            self._connection.execute(_LATEST_TRADE, row)
        kept = batch.where(batch.event_us >= oldest_us[batch.product])
        sides = np.where(kept.taker_buys, int(Side.BUY), int(Side.SELL))
        numbers = (codes[kept.product], kept.trade_id, kept.event_us, kept.price, kept.size, sides)
        self._connection.executemany(
            "INSERT OR IGNORE INTO recent_trades VALUES (?, ?, ?, ?, ?, ?)",
            zip(*(column.tolist() for column in numbers), strict=True),
        )

    def _code(self, product: str) -> int:
        code = self._codes.get(product)
        if code is None:
            execute = self._connection.execute
            execute("INSERT OR IGNORE INTO products (name) VALUES (?)", (checked_product(product),))
            code = int(execute("SELECT code FROM products WHERE name = ?", (product,)).fetchone()[0])
            self._codes[product] = code
        return code

    def _prune(self, product: str, oldest_us: int) -> None:
        if oldest_us >= self._pruned_us.get(product, 0) + _PRUNE_EVERY_US:
            self._connection.execute(_PRUNE, (self._code(product), oldest_us))
            self._pruned_us[product] = oldest_us

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                self._codes = dict(self._connection.execute("SELECT name, code FROM products"))
                raise
        except sqlite3.Error as error:
            raise HotStoreError(f"the hot store did not take a batch ({error}): free disk space") from error

    # Reading

    def offsets(self) -> dict[tuple[str, int], int]:
        """Return the next offset by topic and partition number."""
        rows = self._connection.execute("SELECT topic, number, next_offset FROM offsets")
        return {(topic, number): offset for topic, number, offset in rows}

    def newest_us(self) -> dict[str, int]:
        """Return the time of each product's newest trade, µs UTC, as of what this process took in."""
        return dict(self._newest_us)

    def latest(self) -> pa.Table:
        """Return each product's latest trade and quote: rows of `LATEST`, ordered by product."""
        rows = []
        for row in self._connection.execute(_ALL_LATEST):
            name, exchange, trade_id, price, size, side, event_us, recorded_us = row[:8]
            bid, bid_size, ask, ask_size, imbalance, quoted_us, quote_recorded_us = row[8:]
            quoted = bid is not None
            rows.append(
                {
                    "product": name,
                    "exchange": None if exchange is None else Exchange(exchange).name.lower(),
                    "trade_id": trade_id,
                    "price": _decimal(price),
                    "size": _decimal(size),
                    "taker_side": None if side is None else Side(side).name.lower(),
                    "traded_at": _time(event_us),
                    "trade_recorded_at": _time(recorded_us),
                    "bid": _decimal(bid),
                    "bid_size": _decimal(bid_size),
                    "ask": _decimal(ask),
                    "ask_size": _decimal(ask_size),
                    "spread": unscaled(ask - bid) if quoted else None,
                    "mid": Decimal((ask + bid) * 5).scaleb(-SCALE - 1) if quoted else None,
                    "imbalance": _decimal(imbalance),
                    "quoted_at": _time(quoted_us),
                    "quote_recorded_at": _time(quote_recorded_us),
                }
            )
        return pa.Table.from_pylist(rows, schema=LATEST)

    def recent(self, product: str, *, since_us: int | None = None) -> pa.Table:
        """Return a product's trades of the window: rows of `RECENT`, ordered by trade_id.

        Args:
            product: which; nothing is known of most, so an unknown one has no rows.
            since_us: only trades at or after this, µs UTC; all of the window where None.

        Raises:
            InvalidProductError: it has no product's form.
        """
        oldest_us = self._connection.execute(
            "SELECT t.event_us - ? FROM latest_trade t JOIN products p ON p.code = t.product "
            "WHERE p.name = ?",
            (self._window_us, checked_product(product)),
        ).fetchone()
        if oldest_us is None:
            return RECENT.empty_table()
        rows = self._connection.execute(
            "SELECT trade_id, event_us, price, size, side FROM recent_trades WHERE product = "
            "(SELECT code FROM products WHERE name = ?) AND event_us >= ? ORDER BY trade_id",
            (product, oldest_us[0] if since_us is None else max(since_us, oldest_us[0])),
        ).fetchall()
        numbers = np.array(rows, dtype=np.int64).reshape(-1, 5)
        trade_id, event_us, price, size, side = (np.ascontiguousarray(column) for column in numbers.T)
        names = pa.array([side.name.lower() for side in Side])
        columns = [
            pa.array(trade_id),
            times(event_us),
            decimals(price, PRICE),
            decimals(size, PRICE),
            names.take(pa.array(side)),
        ]
        return pa.table(columns, schema=RECENT)


def _decimal(value: int | None) -> Decimal | None:
    return None if value is None else unscaled(value)


def _time(us: int | None) -> object:
    return None if us is None else to_datetime(us)
