"""What the tables have to hold, computed from the exchange's own trades, and the comparison with them.

Everything is read as a person reads it, through `lakehouse sql`'s views, and computed by DuckDB and numpy:
none of the engine's code decides here.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal

import duckdb
import httpx
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakehouse.home import Home
from lakehouse.market.time import MINUTE_US, SECOND_US, to_iso
from lakehouse.stores import sql
from lakehouse.stores.hot import HotStore
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import TRADES
from streaming.exchanges.simulated.market import SimulatedMarket
from streaming.spine.contract import Partition, Spine
from streaming.spine.topics import BOOK, GAPS, INTAKE, QUARANTINE, QUOTES
from streaming.spine.topics import TRADES as TRADES_TOPIC

Ids = npt.NDArray[np.int64]
Columns = dict[str, npt.NDArray[np.int64]]

_TRADES = """
SELECT trade_id, epoch_us(event_time) AS event_us, CAST(price * 100000000 AS BIGINT) AS price,
    CAST(size * 100000000 AS BIGINT) AS size, CASE taker_side WHEN 'buy' THEN 0 ELSE 1 END AS taker_side,
    CAST(late AS INTEGER) AS late, spine_offset, epoch_us(recorded_at) AS recorded_us,
    day = CAST(event_time AS DATE) AND exchange = 'simulated' AND source IN ('feed', 'rest') AS fits
FROM trades WHERE product = ? ORDER BY trade_id, spine_offset
"""
_CANDLES = """
SELECT CAST(epoch_us(start) AS BIGINT) AS start_us, CAST(open * 100000000 AS HUGEINT) AS open,
    CAST(high * 100000000 AS HUGEINT) AS high, CAST(low * 100000000 AS HUGEINT) AS low,
    CAST(close * 100000000 AS HUGEINT) AS close, volume, quote_volume, taker_buy_volume, taker_sell_volume,
    trade_count, first_trade_id, last_trade_id, revision, epoch_us(recorded_at) AS recorded_us, is_complete
FROM candles_1m WHERE product = ? ORDER BY start
"""
_EXPECTED_CANDLES = """
SELECT event_us - event_us % 60000000 AS start_us, CAST(arg_min(price, trade_id) AS HUGEINT) AS open,
    CAST(max(price) AS HUGEINT) AS high, CAST(min(price) AS HUGEINT) AS low,
    CAST(arg_max(price, trade_id) AS HUGEINT) AS close,
    sum(CAST(size AS HUGEINT)), sum(CAST(price AS HUGEINT) * size),
    coalesce(sum(CAST(size AS HUGEINT)) FILTER (taker_side = 0), 0),
    coalesce(sum(CAST(size AS HUGEINT)) FILTER (taker_side = 1), 0),
    count(*), min(trade_id), max(trade_id), CAST(sum(late) AS BIGINT), max(recorded_us)
FROM trades GROUP BY start_us ORDER BY start_us
"""


def check_tables(
    home: Home,
    open_log: Callable[[], Spine],
    market: SimulatedMarket,
    *,
    last_ids: Mapping[str, int] | None = None,
    holes: Mapping[str, Ids] | None = None,
) -> int:
    """Compare everything in a home with the exchange's own trades; return how many trades there are.

    Args:
        home: whose workers have stopped.
        open_log: opens its log.
        market: the truth.
        last_ids: each product's last trade; that of the archive where None.
        holes: trades that nobody could get.
    """
    trades = 0
    with sql.connect(home) as tables:
        for product in market.products:
            rows = _check_trades(tables, market, product, last_ids, (holes or {}).get(product))
            _check_candles(tables, product, rows)
            _check_latest(tables, product, rows)
            trades += len(rows["trade_id"])
        assert tables.execute("SELECT count(*) FROM trades").fetchone() == (trades,)
        _check_gaps(tables, holes or {})
        _check_counts(tables, home)
        _check_offsets(tables, home, open_log)
    return trades


def _check_trades(
    tables: duckdb.DuckDBPyConnection,
    market: SimulatedMarket,
    product: str,
    last_ids: Mapping[str, int] | None,
    hole: Ids | None,
) -> Columns:
    found: Columns = tables.execute(_TRADES, [product]).fetchnumpy()
    ids = found["trade_id"]
    assert len(ids), f"no trades of {product}"
    assert (np.diff(ids) > 0).all(), f"{product} has trades twice: {ids[1:][np.diff(ids) == 0][:10]}"
    last_id = int(ids[-1]) if last_ids is None else last_ids[product]
    expected = market[product].by_id(int(ids[0]), last_id + 1)
    if hole is not None:
        expected = expected[~np.isin(expected["trade_id"], hole)]
    wanted = expected["trade_id"]
    assert np.array_equal(ids, wanted), (
        f"{product}: missing {np.setdiff1d(wanted, ids)[:10]}, invented {np.setdiff1d(ids, wanted)[:10]}"
    )
    for column in ("event_us", "price", "size", "taker_side"):
        wrong = np.flatnonzero(found[column] != expected[column])
        assert not len(wrong), f"{product} {column} of trades {ids[wrong][:10]}"
    assert found["fits"].all()
    _check_late(product, found)
    return found


def _check_late(product: str, trades: Columns) -> None:
    """A trade is late when one from after its minute stands before it in the log."""
    order = np.argsort(trades["spine_offset"])
    event_us, late = trades["event_us"][order], trades["late"][order]
    newest_before = np.maximum.accumulate(event_us)[:-1]
    minute_end = event_us[1:] - event_us[1:] % MINUTE_US + MINUTE_US
    assert np.array_equal(late[1:] == 1, newest_before >= minute_end), f"{product}: late trades"
    assert late[0] == 0


def _check_candles(tables: duckdb.DuckDBPyConnection, product: str, trades: Columns) -> None:
    with duckdb.connect() as own:
        own.register("trades", pa.table({name: pa.array(values) for name, values in trades.items()}))
        expected = own.execute(_EXPECTED_CANDLES).fetchall()
    ids = trades["trade_id"]
    wanted = []
    for row in expected:
        first, last = max(row[10] - 1, 1), row[11] + 1
        known = int(np.searchsorted(ids, last, "right") - np.searchsorted(ids, first, "left"))
        wanted.append((*row, known == last - first + 1))
    found = []
    for row in tables.execute(_CANDLES, [product]).fetchall():
        volumes = [
            int(row[5].scaleb(8)),
            int(row[6].scaleb(16)),
            int(row[7].scaleb(8)),
            int(row[8].scaleb(8)),
        ]
        found.append((*row[:5], *volumes, *row[9:]))
    for got, want in zip(found, wanted, strict=False):
        assert got == want, f"a candle of {product}"
    assert len(found) == len(wanted), f"candles of {product}"


def _check_latest(tables: duckdb.DuckDBPyConnection, product: str, trades: Columns) -> None:
    found = tables.execute(
        "SELECT trade_id, epoch_us(traded_at), price, bid, bid_size, ask, ask_size FROM latest "
        "WHERE product = ?",
        [product],
    ).fetchall()
    quote = tables.execute(
        "SELECT bid, bid_size, ask, ask_size FROM quotes WHERE product = ? "
        "ORDER BY spine_offset DESC LIMIT 1",
        [product],
    ).fetchall()
    last_id, event_us, price = (int(trades[column][-1]) for column in ("trade_id", "event_us", "price"))
    last = (last_id, event_us, Decimal(price).scaleb(-8))
    assert found == [(*last, *(quote[0] if quote else (None,) * 4))], f"the latest of {product}"
    assert tables.execute(
        "SELECT count(*) FROM quotes WHERE product = ? AND bid >= ask", [product]
    ).fetchone() == (0,)


def _check_gaps(tables: duckdb.DuckDBPyConnection, holes: Mapping[str, Ids]) -> None:
    """What is missing is listed as what nobody could get, and nothing else is."""
    open_gaps: dict[str, list[int]] = {}
    for product, first, last, status in tables.execute(
        "SELECT product, first_trade_id, last_trade_id, status FROM gaps_open"
    ).fetchall():
        assert status == "unfillable", (product, first, last, status)
        open_gaps.setdefault(product, []).extend(range(first, last + 1))
    expected = {product: sorted(ids.tolist()) for product, ids in holes.items() if len(ids)}
    assert {product: sorted(ids) for product, ids in open_gaps.items()} == expected


def _check_counts(tables: duckdb.DuckDBPyConnection, home: Home) -> None:
    """Every input has an end, and the counts are those of the tables."""
    row = tables.execute(
        "SELECT sum(received), sum(accepted + duplicates + quarantined), sum(quarantined), "
        "sum(accepted) FILTER (kind = 'trade'), sum(late) FROM intake"
    ).fetchone()
    assert row is not None
    received, ended, quarantined, accepted_trades, late = (int(value) for value in row)
    assert received == ended
    assert tables.execute("SELECT count(*) FROM quarantine").fetchone() == (quarantined,)
    with IcebergStore.open(home) as iceberg:
        noted_again = sum(iceberg.counters(TRADES).values())
    rows, late_rows = tables.execute("SELECT count(*), count(*) FILTER (late) FROM trades").fetchall()[0]
    assert accepted_trades == rows + noted_again
    assert late == late_rows
    bad = tables.execute(
        "SELECT count(*) FROM quarantine WHERE reason = '' OR detail = '' OR octet_length(frame) IS NULL"
    ).fetchone()
    assert bad == (0,)


def _check_offsets(tables: duckdb.DuckDBPyConnection, home: Home, open_log: Callable[[], Spine]) -> None:
    """Each message of the log is in its table exactly once."""
    with open_log() as spine, HotStore.open(home.hot_store) as hot:
        for topic in (TRADES_TOPIC, QUOTES, BOOK, GAPS, QUARANTINE, INTAKE):
            for number in range(spine.partitions):
                partition = Partition(topic, number)
                end = spine.end(partition)
                key = "spine_offset" if topic != BOOK else "spine_offset, level"
                rows, keys, offsets, lowest, highest = tables.execute(
                    f"SELECT count(*), count(DISTINCT ({key})), count(DISTINCT spine_offset), "
                    f"coalesce(min(spine_offset), 0), coalesce(max(spine_offset), -1) "
                    f"FROM {topic} WHERE spine_partition = ?",
                    [number],
                ).fetchall()[0]
                assert rows == keys, f"{topic}/{number} has messages twice"
                assert (offsets, lowest, highest) == (end, 0, end - 1), f"{topic}/{number} has holes"
        levels = tables.execute(
            "SELECT count(*) FROM (SELECT count(*) AS levels, max(level) AS last FROM book "
            "GROUP BY spine_partition, spine_offset) WHERE levels <> last + 1"
        ).fetchone()
        assert levels == (0,), "book messages with missing levels"
        for (topic, number), offset in hot.offsets().items():
            assert offset == spine.end(Partition(topic, number)), f"the hot store at {topic}/{number}"


def check_rest_candles(home: Home, rest: str, product: str) -> int:
    """Compare complete candles with the exchange's own; return how many there are."""
    with sql.connect(home) as tables:
        found = tables.execute(
            "SELECT epoch_us(start), low, high, open, close, volume FROM candles_1m "
            "WHERE product = ? AND is_complete ORDER BY start DESC LIMIT 300",
            [product],
        ).fetchall()
    if not found:
        return 0
    query = {"granularity": 60, "start": to_iso(found[-1][0]), "end": to_iso(found[0][0])}
    for _ in range(100):
        answer = httpx.get(f"{rest}/products/{product}/candles", params=query, timeout=60)
        if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
            break
    rows = answer.raise_for_status().json(parse_float=Decimal, parse_int=Decimal)
    own = {int(row[0]) * SECOND_US: tuple(row[1:]) for row in rows}
    for start_us, *candle in found:
        assert tuple(candle) == own[start_us], f"the candle of {product} at {to_iso(start_us)}"
    return len(found)
