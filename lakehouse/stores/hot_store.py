"""What every hot store answers, whichever engine keeps it: the current market and the last hour.

The writers differ (`HotStage` fills SQLite, the bridge fills Fluss); what reads is the same.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Final, Protocol, Self

import pyarrow as pa

from lakehouse.home import Home
from lakehouse.settings import Settings
from lakehouse.stores.schemas import PRICE, QUOTES, TIME

LATEST: Final = pa.schema(
    [
        ("product", pa.string()),
        ("exchange", pa.string()),
        ("trade_id", pa.int64()),
        ("price", PRICE),
        ("size", PRICE),
        ("taker_side", pa.string()),
        ("traded_at", TIME),
        ("trade_recorded_at", TIME),
        ("bid", PRICE),
        ("bid_size", PRICE),
        ("ask", PRICE),
        ("ask_size", PRICE),
        ("spread", PRICE),
        ("mid", QUOTES.schema.field("mid").type),
        ("imbalance", QUOTES.schema.field("imbalance").type),
        ("quoted_at", TIME),
        ("quote_recorded_at", TIME),
    ]
)
"""Columns of `HotReader.latest`; those of the trade or of the quote are empty where there was none yet."""

RECENT: Final = pa.schema(
    [
        pa.field("trade_id", pa.int64(), nullable=False),
        pa.field("event_time", TIME, nullable=False),
        pa.field("price", PRICE, nullable=False),
        pa.field("size", PRICE, nullable=False),
        pa.field("taker_side", pa.string(), nullable=False),
    ]
)
"""Columns of `HotReader.recent`."""


class HotStoreError(Exception):
    """The hot store can't be used; the text says what to do."""


class HotReader(Protocol):
    """One namespace's hot store, as those see it who read it."""

    def latest(self) -> pa.Table:
        """Return each product's latest trade and quote: rows of `LATEST`, ordered by product.

        Raises:
            HotStoreError: the store did not answer.
        """
        ...

    def recent(self, product: str, *, since_us: int | None = None) -> pa.Table:
        """Return a product's trades of the window: rows of `RECENT`, ordered by trade_id.

        The window ends with the product's newest trade, by the trades' own time.

        Args:
            product: which; nothing is known of most, so an unknown one has no rows.
            since_us: only trades at or after this, µs UTC; all of the window where None.

        Raises:
            InvalidProductError: it has no product's form.
            HotStoreError: the store did not answer.
        """
        ...

    def newest_us(self) -> Mapping[str, int]:
        """Return the time of each product's newest trade, µs UTC.

        Raises:
            HotStoreError: the store did not answer.
        """
        ...

    def close(self) -> None:
        """Release what the reader holds; it can't be used afterwards."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_hot_reader(settings: Settings, home: Home, *, follow: bool = False) -> HotReader:
    """Open the chosen hot store of a home for reading.

    Args:
        settings: which store, where it is, how much it keeps.
        home: whose data.
        follow: for a reader that stays: it is kept up by a subscription, so that asking costs no trip to a
            server. (Answers of the SQLite store cost none anyhow.)

    Raises:
        HotStoreError: the store can't be opened or does not answer.
    """
    # Only the store that is used is loaded: each brings its own libraries.
    if settings.hot_store_kind == "sqlite":
        from lakehouse.stores.hot import HotStore

        return HotStore.open(home.hot_store, window_minutes=settings.hot_window_minutes)
    from lakehouse.stores.fluss_connection import target_of
    from lakehouse.stores.fluss_hot import FlussHotStore
    from lakehouse.stores.fluss_model import FlussHotModel

    target = target_of(settings, home)
    store = FlussHotModel if follow else FlussHotStore
    return store.open(target, window_minutes=settings.hot_window_minutes)
