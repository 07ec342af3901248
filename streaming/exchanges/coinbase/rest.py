"""Coinbase Exchange's REST interface: past trades, candles and books."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Final

import msgspec

from lakehouse.market.product import checked_product
from lakehouse.market.quarantine import RefusedError
from lakehouse.market.time import MINUTE_US, SECOND_US, to_iso
from lakehouse.market.trade import Trade
from streaming.exchanges.coinbase import frames
from streaming.exchanges.contract import BookSnapshot, OwnCandle, RestError, TradePage
from streaming.exchanges.fields import Fields, json_object
from streaming.exchanges.own_candles import candles_of
from streaming.exchanges.rest import RateLimit, RestClient
from streaming.exchanges.rest_records import read_records

PAGE: Final = 1000
"""The most trades an answer holds."""

CANDLES: Final = 300
"""The most candles that may be asked for at once."""

_CandleRow = tuple[int, Decimal, Decimal, Decimal, Decimal, Decimal]
"""Start in s, low, high, open, close, volume."""

_decode_candles = msgspec.json.Decoder(list[_CandleRow]).decode


class CoinbaseRest:
    """A `Rest` client."""

    def __init__(self, url: str, limit: RateLimit) -> None:
        self._client = RestClient(url, limit)

    async def trades(
        self, product: str, *, first_id: int | None = None, before_id: int | None = None
    ) -> AsyncIterator[TradePage]:
        """Yield pages of trades, newest first; see `Rest.trades`."""
        path = f"/products/{checked_product(product)}/trades"
        cursor = before_id
        while True:
            missing = PAGE if first_id is None or cursor is None else min(PAGE, cursor - first_id)
            if missing <= 0:
                return
            # `after` asks for the trades with smaller ids than the cursor: older ones.
            parameters: dict[str, str | int] = {"limit": missing}
            if cursor is not None:
                parameters["after"] = cursor
            response = await self._client.get(path, parameters)
            trades, refused = _records(product, response.content)
            # The cursor of what is older; the page's own lowest id where an answer has no such header.
            older = response.headers.get("CB-AFTER", "")
            lowest = min((trade.trade_id for trade in trades), default=None)
            following = int(older) if older.isascii() and older.isdigit() and older else lowest
            if following is not None and (
                (cursor is not None and following >= cursor)
                or following <= 1
                or (first_id is not None and following <= first_id)
                or not (trades or refused)
            ):
                following = None
            wanted = [
                trade
                for trade in trades
                if (first_id is None or trade.trade_id >= first_id)
                and (before_id is None or trade.trade_id < before_id)
            ]
            yield TradePage(wanted, refused, following)
            if following is None:
                return
            cursor = following

    async def trade_id_before(self, product: str, moment_us: int) -> int | None:
        """Return the id of the last trade made before a moment, by bisection over the ids."""
        newest = await self._newest(product, None)
        if newest is None or newest.event_us < moment_us:
            return None if newest is None else newest.trade_id
        low, high = 0, newest.trade_id  # the trade `high` is at or after the moment, `low` before it
        while high - low > 1:
            middle = (low + high) // 2
            trade = await self._newest(product, middle + 1)
            if trade is None or trade.trade_id <= low:
                low = middle  # nothing lies between: the ids up to the middle don't exist
            elif trade.event_us < moment_us:
                low = middle
            else:
                high = trade.trade_id
        last = await self._newest(product, low + 1)
        return None if last is None else last.trade_id

    async def candles(self, product: str, first_us: int, end_us: int) -> list[OwnCandle]:
        """Return the exchange's own candles; see `Rest.candles`."""
        path = f"/products/{checked_product(product)}/candles"
        found: list[OwnCandle] = []
        for start_us in range(first_us, end_us, CANDLES * MINUTE_US):
            last_us = min(start_us + CANDLES * MINUTE_US, end_us) - MINUTE_US
            parameters: dict[str, str | int] = {"granularity": 60}
            parameters |= {"start": to_iso(start_us), "end": to_iso(last_us)}
            response = await self._client.get(path, parameters)
            page = candles_of(response.content, _decode_candles, _candle, product)
            # An answer may hold rows before the start asked for.
            found += [candle for candle in page if start_us <= candle.start_us <= last_us]
        return found

    async def book(self, product: str) -> tuple[bytes, BookSnapshot]:
        """Return the aggregated book and its raw bytes."""
        response = await self._client.get(f"/products/{checked_product(product)}/book", {"level": 2})
        try:
            fields = Fields(json_object(response.text), "book")
            bids, asks = fields.levels("bids"), fields.levels("asks")
            event_us = fields.iso_time("time") if "time" in fields else 0
        except RefusedError as error:
            raise RestError(f"the book of {product} can't be read: {error}") from error
        return response.content, BookSnapshot(product, 0, bids, asks, event_us)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _newest(self, product: str, before_id: int | None) -> Trade | None:
        """Return the newest trade below an id, None where there is none."""
        parameters: dict[str, str | int] = {"limit": 1}
        if before_id is not None:
            parameters["after"] = before_id
        response = await self._client.get(f"/products/{checked_product(product)}/trades", parameters)
        trades, refused = _records(product, response.content)
        if refused:
            raise RestError(f"a trade of {product} below {before_id} can't be read: {refused[0][1]}")
        return trades[0] if trades else None


def _candle(row: _CandleRow) -> OwnCandle:
    start, low, high, open_, close, volume = row
    return OwnCandle(start * SECOND_US, open_, high, low, close, volume)


def _records(product: str, content: bytes) -> tuple[list[Trade], list[tuple[bytes, RefusedError]]]:
    """Return the trades of an answer, and the records that are none with the reason."""
    usual = frames.usual_records(product, content)
    if usual is not None:
        return usual, []
    return read_records(product, content, lambda record: frames.trade(record, product=product))
