"""The exchange's REST interface: Coinbase Exchange's paths, and `/control/faults` to break things."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lakehouse.market.time import SECOND_US, InvalidTimeError, parse_iso, to_iso
from streaming.exchanges.simulated.book import book_at, step_of
from streaming.exchanges.simulated.candles import ExchangeCandle, candles
from streaming.exchanges.simulated.faults import FaultPlanError, parse_kind
from streaming.exchanges.simulated.frames import decimal_text, encode
from streaming.exchanges.simulated.products import ProductModel
from streaming.exchanges.simulated.rate_limit import TokenBucket
from streaming.exchanges.simulated.stream import Stream

MOST_TRADES = 1_000
MOST_CANDLES = 300
GRANULARITIES = (60, 300, 900, 3_600, 21_600, 86_400)
_MOST_CANDLE_TRADES = 20_000_000
_ID = re.compile(r"\d{1,19}", re.ASCII)

Handler = Callable[[Request], Awaitable[Response]]


class _RefusedRequestError(Exception):
    """What a request is answered with when it can't be fulfilled."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class _FaultRequest(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    product: str = ""
    amount: int | None = None


def rest_application(stream: Stream, limit: TokenBucket) -> Starlette:
    """Return the REST interface of what a stream shows."""
    rest = _Rest(stream, limit)
    market_routes: dict[str, Handler] = {
        "/time": rest.time,
        "/products": rest.products,
        "/products/{product}": rest.product,
        "/products/{product}/trades": rest.trades,
        "/products/{product}/candles": rest.candles,
        "/products/{product}/book": rest.book,
    }
    return Starlette(
        routes=[
            *(Route(path, rest.limited(handler)) for path, handler in market_routes.items()),
            Route("/control/faults", rest.list_faults, methods=["GET"]),
            Route("/control/faults", answered(rest.add_fault), methods=["POST"]),
        ]
    )


def answered(handler: Handler) -> Handler:
    """Return a handler that answers a refusal as Coinbase does: a status and a message."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except _RefusedRequestError as refusal:
            return _json(encode({"message": str(refusal)}), refusal.status)

    return answer


class _Rest:
    def __init__(self, stream: Stream, limit: TokenBucket) -> None:
        self._stream = stream
        self._limit = limit

    def limited(self, handler: Handler) -> Handler:
        async def check(request: Request) -> Response:
            if not self._limit.take() or self._stream.faults.refuses_request(self._stream.position_us):
                raise _RefusedRequestError(HTTPStatus.TOO_MANY_REQUESTS, "Public rate limit exceeded")
            return await handler(request)

        return answered(check)

    async def time(self, request: Request) -> Response:
        stamp = self._stream.stamp_us()
        return _json(encode({"iso": to_iso(stamp), "epoch": stamp / SECOND_US}))

    async def products(self, request: Request) -> Response:
        market = self._stream.market
        return _json(encode([_described(market[product].model) for product in market.products]))

    async def product(self, request: Request) -> Response:
        return _json(encode(_described(self._stream.market[self._name(request)].model)))

    async def trades(self, request: Request) -> Response:
        """Newest first; `after=X` asks for ids below X, `before=X` for the newest above X."""
        product = self._name(request)
        limit = _number(request, "limit", MOST_TRADES)
        if not 1 <= limit <= MOST_TRADES:
            raise _RefusedRequestError(HTTPStatus.BAD_REQUEST, f"limit is from 1 to {MOST_TRADES}")
        last_id = self._stream.last_trade_id(product)
        end_id = min(_number(request, "after", last_id + 1), last_id + 1)
        first_id = max(_number(request, "before", 0) + 1, end_id - limit, 1)
        trades = self._stream.market[product].by_id(first_id, end_id)
        holes = self._stream.faults.holes.get(product)
        headers = {}
        if len(trades):
            headers = {"cb-before": str(trades["trade_id"][-1]), "cb-after": str(trades["trade_id"][0])}
        if holes is not None:
            trades = trades[~holes.contains(trades["trade_id"])]
        return _json(self._stream.products[product].frames.rest_trades(trades[::-1]), headers=headers)

    async def candles(self, request: Request) -> Response:
        product = self._name(request)
        market = self._stream.market[product]
        granularity = _number(request, "granularity", 60)
        if granularity not in GRANULARITIES:
            raise _RefusedRequestError(HTTPStatus.BAD_REQUEST, "Unsupported granularity")
        length = granularity * SECOND_US
        now = self._stream.market_us
        last = _moment(request, "end", now)
        last -= last % length
        first = _moment(request, "start", last - (MOST_CANDLES - 1) * length)
        first += -first % length
        if (last - first) // length + 1 > MOST_CANDLES:
            raise _RefusedRequestError(
                HTTPStatus.BAD_REQUEST,
                "granularity too small for the requested time range. "
                f"Count of aggregations requested exceeds {MOST_CANDLES}",
            )
        end = min(last + length, now)
        if market.rate * (end - first) / SECOND_US > _MOST_CANDLE_TRADES:
            raise _RefusedRequestError(HTTPStatus.BAD_REQUEST, "too many trades in the requested time range")
        # In a thread: days of trades take seconds to make, and the stream must go on.
        rows = await asyncio.to_thread(candles, market, first, end, granularity)
        body = ",".join(_candle_row(row, market.model) for row in reversed(rows))
        return _json(f"[{body}]".encode())

    async def book(self, request: Request) -> Response:
        product = self._name(request)
        level = _number(request, "level", 1)
        if level not in (1, 2):
            raise _RefusedRequestError(HTTPStatus.BAD_REQUEST, "level is 1 or 2")
        state = book_at(self._stream.market[product], step_of(self._stream.market_us))
        body = self._stream.products[product].frames.rest_book(
            state,
            level=level,
            last_trade_id=self._stream.last_trade_id(product),
            stamp_us=self._stream.stamp_us(),
        )
        return _json(body)

    async def list_faults(self, request: Request) -> Response:
        return _json(encode(list(self._stream.faults.injected)))

    async def add_fault(self, request: Request) -> Response:
        try:
            wanted = msgspec.json.decode(await request.body(), type=_FaultRequest)
            if wanted.product and wanted.product not in self._stream.market:
                raise _RefusedRequestError(HTTPStatus.NOT_FOUND, "NotFound")
            self._stream.faults.request(parse_kind(wanted.kind), wanted.product, wanted.amount)
        except (msgspec.DecodeError, UnicodeDecodeError, FaultPlanError) as error:
            raise _RefusedRequestError(HTTPStatus.BAD_REQUEST, str(error)) from None
        return _json(encode({"kind": wanted.kind, "product": wanted.product}), HTTPStatus.ACCEPTED)

    def _name(self, request: Request) -> str:
        product: str = request.path_params["product"]
        if product not in self._stream.market:
            raise _RefusedRequestError(HTTPStatus.NOT_FOUND, "NotFound")
        return product


def _json(body: bytes, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers, "application/json")


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not _ID.fullmatch(text):
        raise _RefusedRequestError(HTTPStatus.BAD_REQUEST, f"Invalid {name}")
    return int(text)


def _moment(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if _ID.fullmatch(text) and len(text) <= 10:
        return int(text) * SECOND_US
    try:
        return parse_iso(text)
    except InvalidTimeError as error:
        raise _RefusedRequestError(HTTPStatus.BAD_REQUEST, f"Invalid {name}: {error}") from None


def _candle_row(candle: ExchangeCandle, model: ProductModel) -> str:
    prices = ",".join(
        decimal_text(price, model.price_decimals)
        for price in (candle.low, candle.high, candle.open, candle.close)
    )
    return f"[{candle.start_us // SECOND_US},{prices},{decimal_text(candle.volume)}]"


def _described(model: ProductModel) -> dict[str, object]:
    base, _, quote = model.product.partition("-")
    return {
        "id": model.product,
        "base_currency": base,
        "quote_currency": quote,
        "display_name": f"{base}/{quote} (simulated)",
        "quote_increment": decimal_text(model.tick, model.price_decimals),
        "base_increment": decimal_text(model.lot, model.size_decimals),
        "min_market_funds": "1",
        "status": "online",
        "status_message": "",
        "trading_disabled": False,
        "post_only": False,
        "limit_only": False,
        "cancel_only": False,
        "auction_mode": False,
    }
