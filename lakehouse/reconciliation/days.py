"""All breaks of a product's days that have come to rest: every account against the one after it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

import duckdb
import pyarrow as pa

from lakehouse.market.trade import Exchange
from lakehouse.reconciliation.archive import SEALED_COLUMNS, log_breaks, open_gaps, seal_breaks
from lakehouse.reconciliation.breaks import Break
from lakehouse.reconciliation.candles import ARCHIVE_CANDLES, LAYERS, candles_exchange
from lakehouse.stores.duplicates import duplicates
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import TRADES
from lakehouse.stores.seals import SealRecord, edges_of_days

TRADES_AT_ONCE: Final = 2_000_000
"""Trades whose candles are computed in one query; a day with more is computed alone."""


@dataclass(frozen=True)
class OwnCandles:
    """An exchange's own candles of the days, with the columns of `OWN_CANDLES`."""

    exchange: Exchange
    rows: pa.Table


def breaks_of_days(
    store: IcebergStore,
    connection: duckdb.DuckDBPyConnection,
    product: str,
    settled: Mapping[date, SealRecord | None],
    own: OwnCandles | None,
) -> list[Break]:
    """Return where the accounts of a product's days disagree.

    Args:
        store: the archive.
        connection: over the same tables.
        product: whose days.
        settled: what was sealed, by day, at least one; None for a day that was not, but whose candles were
            fetched from the exchange.
        own: None where the exchange can't be asked: then that comparison isn't made.

    Raises:
        duckdb.Error: a table can't be read.
    """
    days = sorted(settled)
    gaps = open_gaps(connection, product)
    breaks = log_breaks(connection, product, days, duplicates(store))
    for day, record in sorted(settled.items()):
        if record is not None:
            trades = store.scan(TRADES, product=product, day=day, columns=SEALED_COLUMNS)
            breaks += seal_breaks(day, record, product, trades, gaps)
    for portion in _portions({day: record.rows if record else 0 for day, record in settled.items()}):
        known = edges_of_days(store, product, portion)
        edges = [(day, edge) for day in portion for edge in known[day]]
        named = {"edge_days": [day for day, _ in edges], "edge_ids": [edge for _, edge in edges]}
        breaks += ARCHIVE_CANDLES.between(connection, product, portion, **named)
    for layer in LAYERS:
        breaks += layer.between(connection, product, days)
    if own is not None:
        connection.register("own_candles", own.rows)
        breaks += candles_exchange(own.exchange).between(connection, product, days)
        connection.unregister("own_candles")
    return breaks


def _portions(sizes: Mapping[date, int]) -> Iterator[list[date]]:
    portion: list[date] = []
    trades = 0
    for day in sorted(sizes):
        if portion and trades + sizes[day] > TRADES_AT_ONCE:
            yield portion
            portion, trades = [], 0
        portion.append(day)
        trades += sizes[day]
    yield portion
