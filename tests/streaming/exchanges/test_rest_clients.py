"""The REST clients against real HTTP servers that answer as the exchanges do, and as they shouldn't."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import pytest

from lakehouse.market.time import to_iso
from lakehouse.market.trade import Exchange, Side
from streaming.exchanges.binance import Binance
from streaming.exchanges.coinbase import Coinbase
from streaming.exchanges.contract import OwnCandle, Rest, RestError, TradePage
from streaming.exchanges.rest import RateLimit, RestClient

T0 = 1_763_600_000_000_000
Answer = tuple[int, dict[str, str], object]


@contextmanager
def serving(answer: Callable[[str, dict[str, str]], Answer]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            status, headers, value = answer(parts.path, dict(parse_qsl(parts.query)))
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *_: object) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def coinbase_history(ids: list[int]) -> Callable[[str, dict[str, str]], Answer]:
    def answer(path: str, query: dict[str, str]) -> Answer:
        assert path == "/products/BTC-USD/trades"
        below = int(query.get("after", 10**9))
        page = [i for i in sorted(ids, reverse=True) if i < below][: min(int(query["limit"]), 1000)]
        rows = [
            {"time": to_iso(T0 + i * 1000), "trade_id": i, "price": "5.5", "size": "0.1", "side": "buy"}
            for i in page
        ]
        return 200, {"CB-BEFORE": str(page[0]), "CB-AFTER": str(page[-1])} if page else {}, rows

    return answer


def binance_history(ids: list[int]) -> Callable[[str, dict[str, str]], Answer]:
    def answer(path: str, query: dict[str, str]) -> Answer:
        if path == "/api/v3/aggTrades":
            start = int(query.get("startTime", 0))
            rows = [{"a": i, "f": i, "l": i, "T": T0 // 1000 + i} for i in ids if T0 // 1000 + i >= start]
            return 200, {}, rows[:1] if "startTime" in query else rows[-1:]
        assert path == "/api/v3/historicalTrades"
        first = int(query["fromId"]) if "fromId" in query else ids[-1] - 999
        rows = [
            {"id": i, "price": "5.5", "qty": "0.1", "quoteQty": "1", "time": T0 // 1000 + i,
             "isBuyerMaker": True, "isBestMatch": True}
            for i in ids if i >= first
        ][: int(query["limit"])]  # fmt: skip
        return 200, {}, rows

    return answer


def exchange_at(kind: str, url: str) -> Rest:
    if kind == "binance":
        return Binance("ws://127.0.0.1", url, ["BTC-USD"]).rest()
    return Coinbase(Exchange.SIMULATED, "ws://127.0.0.1", url).rest()


async def pages(rest: Rest, first: int | None, before: int | None, most: int = 100) -> list[TradePage]:
    found: list[TradePage] = []
    async for page in rest.trades("BTC-USD", first_id=first, before_id=before):
        found.append(page)
        if len(found) == most:
            break
    await rest.close()
    return found


HISTORY = [*range(1, 1500), *range(1600, 4001)]


@pytest.mark.parametrize("kind", ["coinbase", "binance"])
@pytest.mark.parametrize(
    ("first", "before"), [(5, 6), (10, 30), (1, 4001), (1400, 1700), (1500, 1600), (3500, None), (None, 2500)]
)
def test_pages_hold_exactly_the_range_newest_first(kind: str, first: int | None, before: int | None) -> None:
    history = {"coinbase": coinbase_history, "binance": binance_history}[kind](HISTORY)
    with serving(history) as url:
        found = asyncio.run(pages(exchange_at(kind, url), first, before))
    ids = [trade.trade_id for page in found for trade in page.trades]
    expected = [i for i in HISTORY if (first or 0) <= i < (before or 10**9)]
    assert ids == expected[::-1]
    assert found[-1].older is None
    assert {trade.taker_side for page in found for trade in page.trades} <= {Side.SELL}


@pytest.mark.parametrize("kind", ["coinbase", "binance"])
@pytest.mark.parametrize("wanted", [0, 1, 2, 1499, 1599, 1600, 4000, 9000])
def test_the_last_trade_before_a_moment(kind: str, wanted: int) -> None:
    history = {"coinbase": coinbase_history, "binance": binance_history}[kind](HISTORY)
    moment = T0 + wanted * 1000 + 1
    with serving(history) as url:
        rest = exchange_at(kind, url)

        async def ask() -> int | None:
            try:
                return await rest.trade_id_before("BTC-USD", moment)
            finally:
                await rest.close()

        found = asyncio.run(ask())
    known = [i for i in HISTORY if i <= wanted]
    # Binance tells the id before the next trade, which over a hole is one that doesn't exist.
    assert (found or 0) >= (known[-1] if known else 0)
    assert not [i for i in HISTORY if (known[-1] if known else 0) < i <= (found or 0)]


def test_records_that_are_no_trades_come_back_with_their_reason() -> None:
    good = {"time": to_iso(T0), "trade_id": 7, "price": "5", "size": "1", "side": "sell"}
    bad = [good | {"trade_id": 6, "price": "-5"}, good | {"trade_id": 5, "time": "?"}, 3]
    with serving(lambda *_: (200, {"CB-AFTER": "5"}, [good, *bad])) as url:
        (page,) = asyncio.run(pages(exchange_at("coinbase", url), 5, 8))
    assert [trade.trade_id for trade in page.trades] == [7]
    assert [error.reason.value for _, error in page.refused] == ["bad_number", "bad_time", "wrong_shape"]
    assert json.loads(page.refused[0][0])["price"] == "-5"


def test_429_and_5xx_are_asked_again_and_a_plain_no_is_final() -> None:
    answers: list[Answer] = [(429, {}, ""), (503, {}, ""), (200, {}, [])]
    asked: list[str] = []

    def answer(path: str, _: dict[str, str]) -> Answer:
        asked.append(path)
        return (
            answers[min(len(asked), len(answers)) - 1] if path == "/again" else (404, {}, {"message": "no"})
        )

    async def ask(url: str) -> None:
        client = RestClient(url, RateLimit(1000, 1000))
        assert (await client.get("/again", {})).json() == []
        with pytest.raises(RestError, match=r"/never answered HTTP 404"):
            await client.get("/never", {})
        await client.close()

    with serving(answer) as url:
        asyncio.run(ask(url))
    assert asked == ["/again"] * 3 + ["/never"]


def test_the_rate_limit_holds() -> None:
    async def ask() -> float:
        limit = RateLimit(per_second=100, burst=5)
        started = time.monotonic()
        await asyncio.gather(*(limit.acquire() for _ in range(35)))
        return time.monotonic() - started

    assert 0.28 <= asyncio.run(ask()) < 2


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[" * 100_000, b"\xff"])
def test_an_answer_that_is_no_list_is_an_error(body: bytes) -> None:
    with serving(lambda *_: (200, {}, body)) as url:
        for kind in ("coinbase", "binance"):
            with pytest.raises(RestError):
                asyncio.run(pages(exchange_at(kind, url), 1, 5))


MINUTE_US = 60_000_000
FIRST_US = T0 - T0 % MINUTE_US


def coinbase_candles(path: str, query: dict[str, str]) -> Answer:
    """Answer with all minutes asked for but each seventh, one before them, and a volume of floats."""
    assert (path, query["granularity"]) == ("/products/BTC-USD/candles", "60")
    first, last = (int(datetime.fromisoformat(query[name]).timestamp()) // 60 for name in ("start", "end"))
    assert last - first < 300
    rows = [
        f"[{minute * 60}, 1.5, 9.5, 2.5, 3.5, 0.30000000000000004]"
        for minute in range(last, first - 2, -1)
        if minute % 7
    ]
    return 200, {}, f"[{', '.join(rows)}]".encode()


def binance_candles(path: str, query: dict[str, str]) -> Answer:
    """Answer with all minutes asked for; each seventh is one without a trade."""
    assert (path, query["symbol"], query["interval"]) == ("/api/v3/klines", "BTCUSDT", "1m")
    minutes = range(int(query["startTime"]) // 60_000, int(query["endTime"]) // 60_000 + 1)
    assert len(minutes) <= int(query["limit"]) <= 1000
    numbers = ["2.50000000", "9.50000000", "1.50000000", "3.50000000", "0.30000000"]
    rows = [
        [minute * 60_000, *numbers, minute * 60_000 + 59_999, "1.0", minute % 7, "0", "0", "0"]
        for minute in minutes
    ]
    return 200, {}, rows


@pytest.mark.parametrize("kind", ["coinbase", "binance"])
def test_an_exchanges_own_candles_are_exact_and_those_asked_for(kind: str) -> None:
    async def fetched(url: str) -> list[OwnCandle]:
        exchange = (
            Coinbase(Exchange.COINBASE, "", url) if kind == "coinbase" else Binance("", url, ["BTC-USDT"])
        )
        rest = exchange.rest()
        try:
            product = "BTC-USD" if kind == "coinbase" else "BTC-USDT"
            return list(await rest.candles(product, FIRST_US, FIRST_US + 1440 * MINUTE_US))
        finally:
            await rest.close()

    with serving(coinbase_candles if kind == "coinbase" else binance_candles) as url:
        found = asyncio.run(fetched(url))
    minutes = range(FIRST_US // MINUTE_US, FIRST_US // MINUTE_US + 1440)
    assert [candle.start_us // MINUTE_US for candle in found] == [minute for minute in minutes if minute % 7]
    numbers = {tuple(str(number) for number in candle[1:]) for candle in found}
    assert numbers == {("2.50000000", "9.50000000", "1.50000000", "3.50000000", "0.30000000")}


@pytest.mark.parametrize("body", [b"{}", b"[[1]]", b"\xff", b'[["a", 1, 2, 3, 4, 5, 6, 7, 8]]'])
def test_candles_that_cannot_be_read_are_an_error(body: bytes) -> None:
    async def fetched(url: str) -> None:
        rest = Coinbase(Exchange.COINBASE, "", url).rest()
        try:
            await rest.candles("BTC-USD", FIRST_US, FIRST_US + MINUTE_US)
        finally:
            await rest.close()

    with (
        serving(lambda path, query: (200, {}, body)) as url,
        pytest.raises(RestError, match="the candles of BTC-USD can't be read"),
    ):
        asyncio.run(fetched(url))
