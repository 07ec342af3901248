"""Binance spot's REST interface: past trades, candles and books."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Final

import msgspec

from lakehouse.market.quarantine import RefusedError
from lakehouse.market.time import MINUTE_US
from streaming.exchanges.binance.frames import Decoder, rest_trade
from streaming.exchanges.binance.symbols import Symbols
from streaming.exchanges.contract import BookSnapshot, OwnCandle, RestError, TradePage
from streaming.exchanges.own_candles import candles_of
from streaming.exchanges.rest import RateLimit, RestClient
from streaming.exchanges.rest_records import read_records

PAGE: Final = 1000
"""The most trades an answer holds."""

BOOK_DEPTH: Final = 5000
"""The most levels of a side a snapshot holds."""

# Weights of the requests; an address may use 6,000 a minute, of which we leave some to others.
_WEIGHT_PER_SECOND: Final = 80.0
_HISTORICAL_WEIGHT: Final = 25.0
_BOOK_WEIGHT: Final = 250.0
_AGGREGATE_WEIGHT: Final = 4.0
_CANDLES_WEIGHT: Final = 2.0


class _Aggregate(msgspec.Struct):
    """One of `aggTrades`: the trades `f` to `l` in one."""

    f: int
    l: int  # noqa: E741  # the exchange's name


class _Candle(msgspec.Struct, array_like=True):
    """One of `klines`, up to its number of trades; the rest is passed over."""

    start_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    end_ms: int
    quote_volume: Decimal
    trades: int


_decode_klines = msgspec.json.Decoder(list[_Candle]).decode
_decode_aggregates = msgspec.json.Decoder(list[_Aggregate]).decode


def _decode_candles(content: bytes) -> list[_Candle]:
    """Return the candles of an answer that have a trade: minutes without one are in it too."""
    return [candle for candle in _decode_klines(content) if candle.trades]


def _candle(row: _Candle) -> OwnCandle:
    return OwnCandle(row.start_ms * 1000, row.open, row.high, row.low, row.close, row.volume)


class BinanceRest:
    """A `Rest` client within 6,000 weights a minute."""

    def __init__(self, url: str, symbols: Symbols) -> None:
        self._client = RestClient(url, RateLimit(per_second=_WEIGHT_PER_SECOND, burst=1000.0))
        self._decoder = Decoder(symbols)

    async def trades(
        self, product: str, *, first_id: int | None = None, before_id: int | None = None
    ) -> AsyncIterator[TradePage]:
        """Yield pages of trades, newest first; see `Rest.trades`."""
        end = before_id
        while True:
            parameters: dict[str, str | int] = {"symbol": Symbols.symbol(product), "limit": PAGE}
            if end is not None:
                start = max(end - PAGE, first_id or 0, 0)
                parameters |= {"fromId": start, "limit": end - start}
                if start >= end:
                    return
            response = await self._client.get(
                "/api/v3/historicalTrades", parameters, weight=_HISTORICAL_WEIGHT
            )
            trades, refused = read_records(
                product, response.content, lambda record: rest_trade(record, product)
            )
            # `fromId` counts upward, and over a hole the answer goes beyond what was asked for.
            wanted = [
                trade
                for trade in reversed(trades)
                if (first_id is None or trade.trade_id >= first_id) and (end is None or trade.trade_id < end)
            ]
            if end is None:
                start = min((trade.trade_id for trade in trades), default=0)
            finished = start <= max(first_id or 0, 0)
            yield TradePage(wanted, refused, None if finished else start)
            if finished:
                return
            end = start

    async def trade_id_before(self, product: str, moment_us: int) -> int | None:
        """Return the id of the last trade made before a moment, None where there is none."""
        symbol = Symbols.symbol(product)
        at = -(-moment_us // 1000)  # a trade before the moment is before its millisecond, rounded up
        following = await self._aggregates({"symbol": symbol, "startTime": at, "limit": 1})
        if following:
            return following[0].f - 1 or None
        newest = await self._aggregates({"symbol": symbol, "limit": 1})
        return newest[-1].l if newest else None

    async def candles(self, product: str, first_us: int, end_us: int) -> list[OwnCandle]:
        """Return the exchange's own candles; see `Rest.candles`."""
        symbol = Symbols.symbol(product)
        found: list[OwnCandle] = []
        for start_us in range(first_us, end_us, PAGE * MINUTE_US):
            last_us = min(start_us + PAGE * MINUTE_US, end_us) - MINUTE_US
            parameters: dict[str, str | int] = {"symbol": symbol, "interval": "1m", "limit": PAGE}
            parameters |= {"startTime": start_us // 1000, "endTime": last_us // 1000}
            response = await self._client.get("/api/v3/klines", parameters, weight=_CANDLES_WEIGHT)
            found += candles_of(response.content, _decode_candles, _candle, product)
        return found

    async def book(self, product: str) -> tuple[bytes, BookSnapshot]:
        """Return a snapshot of the book and its raw bytes."""
        parameters: dict[str, str | int] = {"symbol": Symbols.symbol(product), "limit": BOOK_DEPTH}
        response = await self._client.get("/api/v3/depth", parameters, weight=_BOOK_WEIGHT)
        try:
            snapshot = self._decoder.decode(response.text)
        except RefusedError as error:
            raise RestError(f"the book of {product} can't be read: {error}") from error
        if not isinstance(snapshot, BookSnapshot):
            raise RestError(f"the answer for the book of {product} is no snapshot: {response.text[:100]!r}")
        return response.content, msgspec.structs.replace(snapshot, product=product)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _aggregates(self, parameters: dict[str, str | int]) -> list[_Aggregate]:
        response = await self._client.get("/api/v3/aggTrades", parameters, weight=_AGGREGATE_WEIGHT)
        try:
            return _decode_aggregates(response.content)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise RestError(f"the aggregate trades {parameters} can't be read: {error}") from error
