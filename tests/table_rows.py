"""Rows for the tests of the table stores."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from lakehouse.stores.schemas import CANDLES_1M, QUOTES, TRADES, Table

DAY = date(2026, 1, 2)
PRODUCTS = ("BTC-USD", "ETH-USD")


def make_trades(ids: Sequence[int], product: str = "BTC-USD", day: date = DAY, **values: Any) -> pa.Table:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    rows = [
        {
            "product": product,
            "day": day,
            "trade_id": trade_id,
            "event_time": midnight + timedelta(microseconds=trade_id),
            "price": Decimal(trade_id).scaleb(-8) + 60_000,
            "size": Decimal("0.00000001"),
            "taker_side": "buy",
            "late": False,
            "source": "feed",
            "exchange": "simulated",
            "received_at": midnight + timedelta(microseconds=trade_id, milliseconds=1),
            "recorded_at": midnight + timedelta(microseconds=trade_id, milliseconds=2),
            "spine_partition": 1,
            "spine_offset": trade_id,
            **values,
        }
        for trade_id in ids
    ]
    return pa.Table.from_pylist(rows, schema=TRADES.schema)


def make_candles(
    minutes: Sequence[int], product: str = "BTC-USD", *, count: int = 5, price: str = "100.5", day: date = DAY
) -> pa.Table:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    value = Decimal(price)
    rows = [
        {
            "product": product,
            "day": day,
            "start": midnight + timedelta(minutes=minute),
            **dict.fromkeys(("open", "high", "low", "close", "volume"), value),
            "quote_volume": value * value,
            "taker_buy_volume": value,
            "taker_sell_volume": Decimal(0),
            "trade_count": count,
            "first_trade_id": minute * 10,
            "last_trade_id": minute * 10 + count - 1,
            "is_complete": True,
            "revision": 0,
            "source": "trades",
            "exchange": "simulated",
            "recorded_at": midnight + timedelta(minutes=minute + 1),
        }
        for minute in minutes
    ]
    return pa.Table.from_pylist(rows, schema=CANDLES_1M.schema)


def make_quotes(seconds: Sequence[int], product: str = "BTC-USD", day: date = DAY, **values: Any) -> pa.Table:
    """Quotes at seconds of a day, each with its second for its offset."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    rows = [
        {
            **{"product": product, "day": day, "event_time": midnight + timedelta(seconds=second)},
            **{"update_id": 0, "bid": Decimal(99), "bid_size": Decimal(1), "ask": Decimal(101)},
            **{"ask_size": Decimal(2), "spread": Decimal(2), "mid": Decimal(100), "imbalance": None},
            **{"source": "book", "exchange": "simulated", "received_at": midnight, "recorded_at": midnight},
            **{"spine_partition": 0, "spine_offset": second},
            **values,
        }
        for second in seconds
    ]
    return pa.Table.from_pylist(rows, schema=QUOTES.schema)


def _any_value(kind: pa.DataType, number: int) -> Any:
    if pa.types.is_decimal(kind):
        digits = ("9" if number % 2 else "8") * kind.precision  # more than the default context keeps
        return Decimal(f"{'-' if number > 1 else ''}{digits}E-{kind.scale}")
    if pa.types.is_timestamp(kind):
        return datetime(2026, 1, 2, tzinfo=UTC) + timedelta(microseconds=number * 123_457)
    if pa.types.is_date(kind):
        return DAY
    if pa.types.is_boolean(kind):
        return number % 2 == 0
    if pa.types.is_integer(kind):
        return number if number % 2 else 2 ** (kind.bit_width - 1) - 1 - number
    if pa.types.is_floating(kind):
        return (-1.0) ** number * 10.0 ** (308 - 600 * number // 4)
    if pa.types.is_binary(kind):
        return bytes(range(256))
    return f"wörd '\"\\ {number}"


def rows_with_extremes(schema: pa.Schema, count: int = 4) -> pa.Table:
    """Rows whose every column has values at the ends of what its type holds, and empties where allowed."""
    rows = [
        {
            field.name: None
            if field.nullable and number == 0
            else PRODUCTS[number % 2]
            if field.name == "product"
            else _any_value(field.type, number)
            for field in schema
        }
        for number in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def as_read(table: Table, rows: pa.Table) -> pa.Table:
    """Rows as they come back: of a column that an earlier version lacked, what its rows would have said."""
    for name, text in table.of_earlier_rows:
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, rows.schema.field(at), rows[name].fill_null(text))
    return rows
