"""Candles computed the slow way, from dictionaries and fractions; shares no code with the engine."""

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any

MINUTE = 60_000_000

Trade = dict[str, Any]
"""product, trade_id, event_us, price, size (scaled by 10⁸), buy, late, recorded_us."""

COMPARED = (
    *("open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume", "taker_sell_volume"),
    *("trade_count", "first_trade_id", "last_trade_id", "is_complete", "revision", "recorded_us"),
)


def reference(
    trades: Iterable[Trade], known_beside: Iterable[tuple[str, int]] = ()
) -> dict[tuple[str, int], dict[str, Any]]:
    """Candles by product and minute; a (product, trade_id) counts once, as it was first seen."""
    unique: dict[tuple[str, int], Trade] = {}
    for trade in trades:
        unique.setdefault((trade["product"], trade["trade_id"]), trade)
    known = set(unique) | set(known_beside)
    minutes: dict[tuple[str, int], list[Trade]] = {}
    for trade in unique.values():
        minutes.setdefault((trade["product"], trade["event_us"] // MINUTE * MINUTE), []).append(trade)
    return {
        key: _candle(key[0], sorted(of, key=lambda t: t["trade_id"]), known) for key, of in minutes.items()
    }


def _candle(product: str, trades: list[Trade], known: set[tuple[str, int]]) -> dict[str, Any]:
    scale = 10**8
    prices = [Fraction(trade["price"], scale) for trade in trades]
    sizes = [Fraction(trade["size"], scale) for trade in trades]
    first, last = trades[0]["trade_id"], trades[-1]["trade_id"]
    return {
        "open": prices[0],
        "high": max(prices),
        "low": min(prices),
        "close": prices[-1],
        "volume": sum(sizes),
        "quote_volume": sum(price * size for price, size in zip(prices, sizes, strict=True)),
        "taker_buy_volume": sum(size for size, t in zip(sizes, trades, strict=True) if t["buy"]),
        "taker_sell_volume": sum(size for size, t in zip(sizes, trades, strict=True) if not t["buy"]),
        "trade_count": len(trades),
        "first_trade_id": first,
        "last_trade_id": last,
        "is_complete": all((product, i) in known for i in range(max(first - 1, 1), last + 2)),
        "revision": sum(1 for trade in trades if trade["late"]),
        "recorded_us": max(trade["recorded_us"] for trade in trades),
    }


def from_rows(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """Rows of `candles_1m` in the reference's form; a key that is there twice is an error."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        key = row["product"], _us(row["start"])
        assert key not in found, key
        assert row["day"] == row["start"].date()
        candle = {name: row[name] for name in COMPARED if name != "recorded_us"}
        candle["recorded_us"] = _us(row["recorded_at"])
        found[key] = {
            name: Fraction(value) if isinstance(value, Decimal) else value for name, value in candle.items()
        }
    return found


def _us(moment: Any) -> int:
    seconds = int(moment.replace(microsecond=0).timestamp())
    return seconds * 1_000_000 + int(moment.microsecond)
