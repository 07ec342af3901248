"""The accounts of candles: the archived trades, `candles_1m`, the exchange's own, hours and days.

Nothing here is shared with the code that makes the candles: sums are DuckDB's.
"""

from typing import Final

import pyarrow as pa

from lakehouse.market.trade import Exchange
from lakehouse.reconciliation.comparison import Comparison
from lakehouse.stores.schemas import CANDLES_1D, CANDLES_1H, CANDLES_1M, OF_EXCHANGE, TIME, VOLUME

OWN_CANDLES: Final = pa.schema(
    [
        ("day", pa.date32()),
        ("start", TIME),
        *((name, VOLUME) for name in ("open", "high", "low", "close", "volume")),
    ]
)
"""An exchange's own candles of one product, as `candles_exchange` finds them under the name that the
connection gives them: `own_candles`."""

TOLERANCE: Final = {Exchange.COINBASE: {"volume": 0.0001}}
"""By exchange what of its candles is not exact by construction, and how far it may be off.

Coinbase sums a candle's volume in floating point and sends it as such, so it may differ in its last digits:
0.01 %. Its prices are single trades' and exact. Binance sends decimal texts of exact sums, and the simulated
exchange computes in integers: nothing is tolerated of them.
"""

AGGREGATES: Final = """
    arg_min(price, trade_id) AS open, max(price) AS high, min(price) AS low,
    arg_max(price, trade_id) AS close,
    CAST(sum(size) AS DECIMAL(38, 8)) AS volume,
    CAST(sum(price * size) AS DECIMAL(38, 16)) AS quote_volume,
    CAST(coalesce(sum(size) FILTER (taker_side = 'buy'), 0) AS DECIMAL(38, 8)) AS taker_buy_volume,
    CAST(coalesce(sum(size) FILTER (taker_side = 'sell'), 0) AS DECIMAL(38, 8)) AS taker_sell_volume,
    count(*) AS trade_count, min(trade_id) AS first_trade_id, max(trade_id) AS last_trade_id,
    count(*) FILTER (late) AS revision, 'trades' AS source, arg_max(exchange, trade_id) AS exchange,
    max(recorded_at) AS recorded_at
"""
"""What SQL makes of a minute's trades: all columns of a candle but `start` and `is_complete`."""

TOLD: Final = f"""
    start, open, high, low, close, volume, false AS is_complete, 0 AS revision, '{OF_EXCHANGE}' AS source,
    exchange, recorded_at
"""
"""What SQL makes of a row of `exchange_candles`: all columns of a candle that are not empty then."""

_PLACE: Final = "coalesce({}_trade_id, epoch_us(start) // 60_000_000)"
"""Where a minute comes among others: by its ids, or by its number where the exchange alone tells it."""


def _whole(aggregate: str, column: str) -> str:
    """Return an aggregate that is unknown where a part of it is."""
    return f"CASE WHEN count({column}) = count(*) THEN {aggregate.format(column)} END AS {column}"


ADDED_UP: Final = f"""
    arg_min(open, {_PLACE.format("first")}) AS open, max(high) AS high, min(low) AS low,
    arg_max(close, {_PLACE.format("last")}) AS close,
    CAST(sum(volume) AS DECIMAL(38, 8)) AS volume,
    {_whole("CAST(sum({}) AS DECIMAL(38, 16))", "quote_volume")},
    {_whole("CAST(sum({}) AS DECIMAL(38, 8))", "taker_buy_volume")},
    {_whole("CAST(sum({}) AS DECIMAL(38, 8))", "taker_sell_volume")},
    {_whole("CAST(sum({}) AS BIGINT)", "trade_count")},
    {_whole("min({})", "first_trade_id")},
    {_whole("max({})", "last_trade_id")},
    CAST(sum(revision) AS BIGINT) AS revision, min(source) AS source,
    arg_max(exchange, {_PLACE.format("last")}) AS exchange, max(recorded_at) AS recorded_at
"""
"""What SQL makes of minutes together: all columns of a candle but `start` and `is_complete`."""

_WANTED: Final = "product = $product AND day BETWEEN $first_day AND $last_day AND list_contains($days, day)"
_KEY: Final = "strftime({}, '%Y-%m-%dT%H:%M:%S.%fZ') AS key"
_PRICES: Final = ("open", "high", "low", "close")
_SUMS: Final = ("volume", "quote_volume", "taker_buy_volume", "taker_sell_volume")

# A trade that is archived twice counts once: `seal_archive` reports it. A day without any is what was fetched
# of the exchange's own candles.
_FROM_TRADES: Final = f"""
    WITH once AS (
        SELECT DISTINCT ON (day, trade_id) day, trade_id, event_time, price, size, taker_side, late, exchange,
            recorded_at
        FROM trades WHERE {_WANTED} ORDER BY day, trade_id, recorded_at
    ), known AS (
        SELECT day, trade_id AS id FROM once
        UNION SELECT unnest(CAST($edge_days AS DATE[])), unnest(CAST($edge_ids AS BIGINT[]))
    ), islands AS (
        SELECT day, min(id) AS first_known, max(id) AS last_known
        FROM (SELECT day, id, id - row_number() OVER (PARTITION BY day ORDER BY id) AS island FROM known)
        GROUP BY day, island
    ), candles AS (
        SELECT day, date_trunc('minute', event_time) AS start,
            {AGGREGATES}
        FROM once GROUP BY ALL
    )
    SELECT candles.*, {_KEY.format("start")}, first_known IS NOT NULL AS is_complete
    FROM candles LEFT JOIN islands ON islands.day = candles.day
        AND first_known <= greatest(first_trade_id - 1, 1) AND last_known >= last_trade_id + 1
    UNION ALL BY NAME
    SELECT day, {TOLD}, {_KEY.format("start")}
    FROM exchange_candles WHERE {_WANTED} AND day NOT IN (SELECT day FROM once)"""


def _stored(table: str, columns: tuple[str, ...]) -> str:
    return f"SELECT day, {_KEY.format('start')}, {', '.join(columns)} FROM {table} WHERE {_WANTED}"


def _of_minutes(unit: str) -> str:
    """Return the query of the candles that a unit's minutes add up to; a minute twice counts once.

    One is complete when all its minutes are, and no id is missing between them: a complete minute knows the
    ids from right before its first to right after its last, and minutes whose known ids touch are a run.
    """
    return f"""
        WITH once AS (SELECT DISTINCT ON (day, start) * FROM candles_1m WHERE {_WANTED} ORDER BY day, start),
        reached AS (
            SELECT day, start, first_trade_id,
                max(last_trade_id) OVER (PARTITION BY day ORDER BY first_trade_id) AS last_known
            FROM once WHERE is_complete
        ), steps AS (
            SELECT day, start, first_trade_id,
                first_trade_id > lag(last_known) OVER (PARTITION BY day ORDER BY first_trade_id) + 3 AS steps
            FROM reached
        ), runs AS (
            SELECT day, start, count(*) FILTER (steps) OVER (PARTITION BY day ORDER BY first_trade_id) AS run
            FROM steps
        )
        SELECT day, {_KEY.format(f"date_trunc('{unit}', start)")}, {ADDED_UP},
            count(run) = count(*) AND min(run) = max(run) AS is_complete
        FROM once LEFT JOIN runs USING (day, start)
        GROUP BY day, date_trunc('{unit}', start)"""


_OF_TRADES: Final = (
    *_PRICES,
    *_SUMS,
    *("trade_count", "first_trade_id", "last_trade_id", "is_complete", "revision", "source"),
    *("exchange", "recorded_at"),
)

ARCHIVE_CANDLES: Final = Comparison(
    "archive_candles", "trades", _FROM_TRADES, "candles_1m", _stored("candles_1m", _OF_TRADES), _OF_TRADES
)
"""Every candle against its archived trades, or against `exchange_candles` on a day without any, on all
columns; takes `edge_days` and `edge_ids`: the ids right before and after days that are known to be other
days' trades."""

LAYERS: Final = tuple(
    Comparison(name, CANDLES_1M.name, _of_minutes(unit), table, _stored(table, _OF_TRADES), _OF_TRADES)
    for name, table, unit in (
        ("minutes_hours", CANDLES_1H.name, "hour"),
        ("minutes_days", CANDLES_1D.name, "day"),
    )
)
"""Longer candles against the minutes that they are made of."""


def candles_exchange(exchange: Exchange) -> Comparison:
    """Return the comparison of `candles_1m` with an exchange's own candles (`OWN_CANDLES`).

    Days that have the exchange's own candles are left out: compared with themselves they prove nothing.
    """
    columns = (*_PRICES, "volume")
    told = f"SELECT day FROM candles_1m WHERE {_WANTED} AND source = '{OF_EXCHANGE}'"
    expected = f"SELECT day, {_KEY.format('start')}, {', '.join(columns)} FROM own_candles"
    return Comparison(
        "candles_exchange",
        "exchange",
        f"{expected} WHERE list_contains($days, day) AND day NOT IN ({told})",
        "candles_1m",
        f"{_stored('candles_1m', columns)} AND day NOT IN ({told})",
        columns,
        TOLERANCE.get(exchange, {}),
    )
