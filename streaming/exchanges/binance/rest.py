"""Binance spot's REST interface: past trades and books."""

from collections.abc import AsyncIterator
from typing import Final

import msgspec

from lakehouse.market.quarantine import RefusedError
from streaming.exchanges.binance.frames import Decoder, rest_trade
from streaming.exchanges.binance.symbols import Symbols
from streaming.exchanges.contract import BookSnapshot, RestError, TradePage
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


class _Aggregate(msgspec.Struct):
    """One of `aggTrades`: the trades `f` to `l` in one."""

    f: int
    l: int  # noqa: E741  # the exchange's name


_decode_aggregates = msgspec.json.Decoder(list[_Aggregate]).decode


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
