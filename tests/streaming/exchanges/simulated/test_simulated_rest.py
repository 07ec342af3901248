"""The REST interface over a real socket: cursors, candles, books, refusals, the rate limit."""

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import httpx
import msgspec
import pytest

from lakehouse.market.exact import scaled, unscaled
from lakehouse.market.time import DAY_US, HOUR_US, MINUTE_US, SECOND_US, parse_iso, to_iso
from lakehouse.market.trade import Side
from streaming.exchanges.simulated.book import book_at, step_of
from streaming.exchanges.simulated.rate_limit import TokenBucket
from streaming.exchanges.simulated.server import SimulatedExchange

NOW = parse_iso("2026-03-14T12:34:56.789Z")

Use = Callable[[SimulatedExchange, httpx.AsyncClient], Awaitable[None]]


def with_rest(use: Use, **arguments: Any) -> None:
    """Run an exchange whose time stands still at NOW, and a client of its REST interface."""

    async def run() -> None:
        options: dict[str, Any] = {"rate": 20.0, "speed": 1e-6, "start_us": NOW, "rest_rate": 10_000.0}
        async with (
            SimulatedExchange(["BTC-USD", "LINK-USD"], **(options | arguments)) as exchange,
            httpx.AsyncClient(base_url=exchange.rest_url) as client,
        ):
            await use(exchange, client)

    asyncio.run(run())


def test_cursors_walk_a_whole_day_without_hole_or_double() -> None:
    async def use(exchange: SimulatedExchange, client: httpx.AsyncClient) -> None:
        market = exchange.market["LINK-USD"]
        start = NOW - NOW % DAY_US - DAY_US
        first, cursor = market.last_id_before(start) + 1, market.last_id_before(start + DAY_US) + 1
        end = cursor
        seen: list[dict[str, Any]] = []
        while cursor > first:
            answer = await client.get("/products/LINK-USD/trades", params={"after": cursor, "limit": 1000})
            page = answer.json()
            assert answer.headers["cb-before"] == str(page[0]["trade_id"])
            assert int(answer.headers["cb-after"]) == page[-1]["trade_id"] == cursor - len(page)
            seen += page
            cursor = int(answer.headers["cb-after"])
        seen = [row for row in seen if row["trade_id"] >= first]
        assert [row["trade_id"] for row in seen] == list(range(end - 1, first - 1, -1))
        truth = exchange.market.trades("LINK-USD", start, start + DAY_US)[::-1]
        assert [scaled(row["price"]) for row in seen] == truth["price"].tolist()
        assert [scaled(row["size"]) for row in seen] == truth["size"].tolist()
        assert [parse_iso(row["time"]) for row in seen] == truth["event_us"].tolist()
        makers = ["sell" if side == Side.BUY else "buy" for side in truth["taker_side"]]
        assert [row["side"] for row in seen] == makers

    with_rest(use, rate=4.0)


def test_a_page_is_bounded_by_its_cursors() -> None:
    async def use(exchange: SimulatedExchange, client: httpx.AsyncClient) -> None:
        last = exchange.market["BTC-USD"].last_id_before(NOW)

        async def ids(**params: int) -> list[int]:
            rows = (await client.get("/products/BTC-USD/trades", params=params)).json()
            return [row["trade_id"] for row in rows]

        assert await ids() == list(range(last, last - 1000, -1))
        assert await ids(limit=3) == [last, last - 1, last - 2]
        assert await ids(after=2**63 - 1, limit=2) == [last, last - 1]
        assert await ids(after=last - 5, limit=2) == [last - 6, last - 7]
        assert await ids(before=last - 4) == [last, last - 1, last - 2, last - 3]
        assert await ids(before=last - 10, after=last - 7) == [last - 8, last - 9]
        assert await ids(before=last) == []
        assert await ids(after=3) == [2, 1]
        assert await ids(after=1) == []

    with_rest(use)


@pytest.mark.parametrize("granularity", [60, 300, 3600])
def test_candles_are_those_of_the_trades(granularity: int) -> None:
    async def use(exchange: SimulatedExchange, client: httpx.AsyncClient) -> None:
        first = NOW - 4 * HOUR_US
        first -= first % (granularity * SECOND_US)
        answer = await client.get(
            "/products/LINK-USD/candles",
            params={"granularity": granularity, "start": to_iso(first), "end": to_iso(NOW)},
        )
        rows = msgspec.json.Decoder(list[tuple[int, Decimal, Decimal, Decimal, Decimal, Decimal]]).decode(
            answer.content
        )
        expected: dict[int, list[int]] = {}
        for trade in exchange.market.trades("LINK-USD", first, NOW):
            start = int(trade["event_us"]) // SECOND_US // granularity * granularity
            price, size = int(trade["price"]), int(trade["size"])
            row = expected.setdefault(start, [price, price, price, price, 0])
            row[:] = [min(row[0], price), max(row[1], price), row[2], price, row[4] + size]
        wanted = [(start, *map(unscaled, row)) for start, row in sorted(expected.items(), reverse=True)]
        assert rows == wanted
        if granularity == 60:
            assert len(rows) < 240  # minutes without a trade are absent

    with_rest(use)


def test_more_than_300_candles_are_refused() -> None:
    async def use(exchange: SimulatedExchange, client: httpx.AsyncClient) -> None:
        for count, status in ((300, 200), (301, 400)):
            start = to_iso(NOW - NOW % MINUTE_US - (count - 1) * MINUTE_US)
            answer = await client.get(f"/products/BTC-USD/candles?granularity=60&start={start}")
            assert answer.status_code == status
        assert "exceeds 300" in answer.json()["message"]
        assert len((await client.get("/products/BTC-USD/candles?granularity=60")).json()) == 300

    with_rest(use)


def test_products_time_and_book() -> None:
    async def use(exchange: SimulatedExchange, client: httpx.AsyncClient) -> None:
        listed = (await client.get("/products")).json()
        assert [product["id"] for product in listed] == ["BTC-USD", "LINK-USD"]
        assert (await client.get("/products/LINK-USD")).json() == listed[1]
        assert parse_iso((await client.get("/time")).json()["iso"]) - NOW < SECOND_US
        state = book_at(exchange.market["BTC-USD"], step_of(exchange.stream.market_us))
        book = (await client.get("/products/BTC-USD/book", params={"level": 2})).json()
        assert [(scaled(price), scaled(size)) for price, size, _ in book["bids"]] == state.bids
        assert [(scaled(price), scaled(size)) for price, size, _ in book["asks"]] == state.asks
        best = (await client.get("/products/BTC-USD/book")).json()
        assert (best["bids"], best["asks"]) == (book["bids"][:1], book["asks"][:1])

    with_rest(use)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/products/XRP-USD", 404),
        ("/products/..%2F..%2Fetc/trades", 404),
        ("/products/BTC-USD/trades?limit=1001", 400),
        ("/products/BTC-USD/trades?limit=0", 400),
        ("/products/BTC-USD/trades?after=-1", 400),
        ("/products/BTC-USD/trades?after=NaN", 400),
        ("/products/BTC-USD/candles?granularity=61", 400),
        ("/products/BTC-USD/candles?start=yesterday", 400),
        ("/products/BTC-USD/book?level=3", 400),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_message(path: str, status: int) -> None:
    async def use(exchange: SimulatedExchange, client: httpx.AsyncClient) -> None:
        answer = await client.get(path)
        assert answer.status_code == status
        if answer.headers["content-type"] == "application/json":
            assert answer.json()["message"]

    with_rest(use)


def test_too_many_requests_get_429_and_later_ones_an_answer() -> None:
    async def use(exchange: SimulatedExchange, client: httpx.AsyncClient) -> None:
        answers = await asyncio.gather(*(client.get("/time") for _ in range(40)))
        passed = [answer for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert 15 <= len(passed) < 30
        assert len(passed) + len(refused) == 40
        assert refused[0].json() == {"message": "Public rate limit exceeded"}
        await asyncio.sleep(0.25)
        assert (await client.get("/time")).status_code == 200

    with_rest(use, rest_rate=10.0)


def test_a_bucket_lets_through_its_burst_and_then_its_rate() -> None:
    now = [0.0]
    bucket = TokenBucket(10.0, 15.0, lambda: now[0])
    assert [bucket.take() for _ in range(16)] == [True] * 15 + [False]
    now[0] = 1.0
    assert [bucket.take() for _ in range(11)] == [True] * 10 + [False]
