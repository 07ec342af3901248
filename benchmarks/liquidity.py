"""A product-day's liquidity: quotes weighted by time, and the book replayed, held against reading them."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.figure import Figure, median_seconds
from lakehouse.home import Home
from lakehouse.market.columns import days, decimals, times
from lakehouse.market.time import DAY_US, MINUTE_US, day_of, now_us
from lakehouse.metrics import depth, liquidity
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import BOOK, PRICE, QUOTES, Table

QUOTE_COUNT = 1_000_000
LEVEL_COUNT = 5_000_000
LEVELS_OF_A_MESSAGE = 20
FILES = 5
"""The archive's files of a day that nobody has compacted."""

PRODUCT = "BTC-USD"
_START_US = now_us() // DAY_US * DAY_US - DAY_US
_MID = 60_000 * 10**8
_CENT = 10**6


def measure() -> list[Figure]:
    """Compute both of a day that moves all the time, from tables on the disk."""
    day = day_of(_START_US)
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder), "simulated").create()
        with IcebergStore.open(home) as archive:
            archive.append(QUOTES, _quotes())
            book = _book()
            for at in range(0, LEVEL_COUNT, LEVEL_COUNT // FILES):
                archive.append(BOOK, book.slice(at, LEVEL_COUNT // FILES))

            def weighted() -> pa.Table:
                quotes = archive.scan(QUOTES, product=PRODUCT, day=day, columns=liquidity.COLUMNS)
                return liquidity.liquidity_rows(PRODUCT, day, quotes, quotes.slice(0, 0), {})

            def replayed() -> dict[str, float | None]:
                pieces = archive.in_log_order(BOOK, PRODUCT, day, depth.COLUMNS)
                return depth.depth_figures(day, pieces)

            figures = []
            for count, what, table, columns, work in (
                (QUOTE_COUNT, "quotes", QUOTES, liquidity.COLUMNS, weighted),
                (LEVEL_COUNT, "levels of the book", BOOK, depth.COLUMNS, replayed),
            ):
                seconds = median_seconds(work, repeats=3)
                reading = median_seconds(partial(_read, archive, table, columns), repeats=3)
                figures.append(
                    Figure(
                        f"{count:,} {what} → liquidity of a day",
                        *(seconds, "s", "pyarrow reads the columns", reading),
                        "–",
                    )
                )
            minutes = replayed()["book_minutes"]
            if minutes != DAY_US // MINUTE_US:
                raise RuntimeError(f"the book was known in {minutes} minutes, not in all of the day")
    return figures


def _read(archive: IcebergStore, table: Table, columns: tuple[str, ...]) -> None:
    for file in archive.data_files(table):
        pq.ParquetFile(file.file_path).read(list(columns))


def _always(text: str, count: int) -> pa.Array:
    return pa.array([text]).take(pa.array(np.zeros(count, np.int64)))


def _columns(table: Table, count: int, own: dict[str, pa.Array]) -> pa.Table:
    """Return rows of a table: what is given, and anything for the other columns."""
    moments = _START_US + np.arange(count) * (DAY_US // count)
    shared = {
        **{"product": _always(PRODUCT, count), "exchange": _always("simulated", count)},
        **{name: times(moments) for name in ("event_time", "received_at", "recorded_at")},
        **{"day": days(moments), "spine_partition": pa.array(np.zeros(count, np.int32))},
    }
    columns = shared | own
    arrays = [columns[field.name].cast(field.type) for field in table.schema]
    return pa.Table.from_arrays(arrays, schema=table.schema)


def _quotes() -> pa.Table:
    generator = np.random.default_rng(7)
    bid = _MID + generator.integers(-1_000, 1_000, QUOTE_COUNT) * _CENT
    size = decimals(generator.integers(1, 10**9, QUOTE_COUNT), PRICE)
    own = {
        **{"bid": decimals(bid, PRICE), "bid_size": size},
        **{"ask": decimals(bid + _CENT, PRICE), "ask_size": size},
        "spread": decimals(np.full(QUOTE_COUNT, _CENT), PRICE),
        "mid": decimals(10 * bid + 5 * _CENT, QUOTES.schema.field("mid").type),
        "imbalance": decimals(np.zeros(QUOTE_COUNT, np.int64), QUOTES.schema.field("imbalance").type),
        "source": _always("book", QUOTE_COUNT),
        **{name: pa.array(np.arange(QUOTE_COUNT)) for name in ("update_id", "spine_offset")},
    }
    return _columns(QUOTES, QUOTE_COUNT, own)


def _book() -> pa.Table:
    generator = np.random.default_rng(8)
    place = np.arange(LEVEL_COUNT)
    is_bid = generator.random(LEVEL_COUNT) < 0.5
    away = generator.integers(1, 20_000, LEVEL_COUNT) * _CENT
    message = pa.array(place // LEVELS_OF_A_MESSAGE)
    kinds, sides = pa.array(["update", "snapshot"]), pa.array(["ask", "bid"])
    own = {
        "kind": kinds.take(pa.array((place < LEVELS_OF_A_MESSAGE).astype(np.int8))),
        "level": pa.array(place % LEVELS_OF_A_MESSAGE),
        "side": sides.take(pa.array(is_bid.astype(np.int8))),
        "price": decimals(_MID + np.where(is_bid, -away, away), PRICE),
        "size": decimals(generator.integers(0, 10**8, LEVEL_COUNT), PRICE),
        **dict.fromkeys(("first_update_id", "last_update_id", "spine_offset"), message),
    }
    return _columns(BOOK, LEVEL_COUNT, own)
