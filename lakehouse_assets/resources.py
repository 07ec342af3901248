"""What assets, checks and sensors work with: the tables, the exchange, and SQL.

Each resource holds plain settings and returns the domain's own object; nothing is opened before it is used.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any, Self, cast

import dagster as dg
import duckdb
from dagster_duckdb import DuckDBResource
from pydantic import Field

from lakehouse.home import Home, Namespace, home_of
from lakehouse.market.trade import Exchange
from lakehouse.settings import Settings, load_settings
from lakehouse.stores import sql
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.iceberg_catalog import warehouse
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, Table
from streaming.engines.rebuilding import RebuildDays, rebuilder
from streaming.exchanges.choice import exchange_for
from streaming.sealing.day import Origin

_LIVE_FEEDS = {
    "simulated": Exchange.SIMULATED,
    "coinbase": Exchange.COINBASE,
    "binance": Exchange.BINANCE,
}


class Lakehouse(dg.ConfigurableResource):  # type: ignore[type-arg]
    """One namespace's tables and the exchange they come from."""

    root: str = Field(description="LAKEHOUSE_HOME, absolute.")
    namespace: str = Field(description="market or simulated.")
    feed: str = Field(description="simulated, coinbase, binance or recording:PATH.")
    lateness_minutes: int = Field(description="How long after its end, in event time, a day is over.")

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the resource for settings."""
        home = home_of(settings)
        return cls(
            root=str(home.root),
            namespace=home.namespace,
            feed=settings.feed,
            lateness_minutes=settings.lateness_minutes,
        )

    @property
    def home(self) -> Home:
        """The namespace's folders."""
        return _home(self.root, self.namespace)

    @property
    def is_written(self) -> bool:
        """Whether anything was ever written: opening a store would make it."""
        return warehouse(self.home).exists()

    def no_data(self) -> dg.SkipReason:
        """Say why a tick has nothing to look at where nothing was ever written."""
        return dg.SkipReason(f"{self.root} holds no {self.namespace} data yet")

    @property
    def can_fetch(self) -> bool:
        """Whether there is an exchange to ask; a recording can't be."""
        return self.feed in _LIVE_FEEDS

    def iceberg(self) -> IcebergStore:
        """Open the Iceberg tables; use it as a context manager."""
        return IcebergStore.open(self.home.create())

    def paimon(self) -> PaimonStore:
        """Open the Paimon tables; use it as a context manager."""
        return PaimonStore.open(self.home.create())

    def rebuilder(self, store: IcebergStore, candles: PaimonStore, table: Table = CANDLES_1M) -> RebuildDays:
        """Return how the chosen engine rebuilds days of a table of candles.

        Raises:
            HomeError: another engine writes the tables.
        """
        return rebuilder(load_settings(home=self.home.root), self.home, store, candles, table)

    @asynccontextmanager
    async def origin(self) -> AsyncIterator[Origin | None]:
        """Open the exchange's REST interface for the block; None for a recording."""
        if not self.can_fetch:
            yield None
            return
        code = _LIVE_FEEDS[self.feed]
        settings = load_settings(home=self.home.root, feed=self.feed)
        rest = exchange_for(code, settings, settings.chosen_products).rest()
        try:
            yield Origin(code, rest)
        finally:
            await rest.close()


class LakehouseDuckDB(DuckDBResource):
    """DuckDB over the current snapshots of all tables, read-only: a new connection for each block."""

    database: str = ":memory:"
    root: str = Field(description="LAKEHOUSE_HOME, absolute.")
    namespace: str = Field(description="market or simulated.")

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the resource for settings."""
        home = home_of(settings)
        return cls(root=str(home.root), namespace=home.namespace)

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Connect to the tables as they are now for the block; closed on errors as well."""
        home = _home(self.root, self.namespace)
        with closing(sql.connect(home, load_settings(home=self.root))) as connection:
            yield connection


def _home(root: str, namespace: str) -> Home:
    """Return the home; the catalog's address comes from the settings, as a resource is shown to everyone."""
    return home_of(load_settings(home=root), namespace=cast(Namespace, namespace))


def build_resources(settings: Settings) -> dict[str, Any]:
    """Return the resources by the names that assets ask for."""
    return {"lakehouse": Lakehouse.of(settings), "duckdb": LakehouseDuckDB.of(settings)}
