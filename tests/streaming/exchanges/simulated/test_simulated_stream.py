"""What goes over the WebSocket: the market's own trades, heartbeats, a book that can be followed."""

import asyncio
import functools
import json
from typing import Any

import httpx
import pytest
from exchange_client import (
    ALL_CHANNELS,
    Message,
    frames_until,
    listening,
    messages_until,
    of_type,
    read_until_closed,
    subscribe,
)
from websockets.asyncio.client import connect

from lakehouse.market.exact import scaled
from lakehouse.market.time import SECOND_US, parse_iso, to_iso
from lakehouse.market.trade import Side
from streaming.exchanges.simulated.book import book_at, step_of
from streaming.exchanges.simulated.server import SimulatedExchange

MIDNIGHT = parse_iso("2026-03-15T00:00:00Z")
START, END = MIDNIGHT - 20 * SECOND_US, MIDNIGHT + 20 * SECOND_US
PRODUCTS = ["BTC-USD", "LINK-USD", "PEPE-USDT"]


def exchange_over_midnight(**arguments: Any) -> SimulatedExchange:
    options: dict[str, Any] = {"rate": 15.0, "speed": 80.0, "start_us": START, "end_us": END, "waits": True}
    return SimulatedExchange(PRODUCTS, **(options | arguments))


@functools.cache
def recorded(channels: tuple[str, ...] = ALL_CHANNELS, **arguments: Any) -> list[Message]:
    async def run() -> list[Message]:
        async with exchange_over_midnight(**arguments) as exchange:
            return await messages_until(exchange, channels, to_iso(END + SECOND_US))

    return asyncio.run(run())


def test_live_trades_are_the_markets_and_those_that_rest_returns_after_a_restart() -> None:
    messages = recorded()
    truth = exchange_over_midnight().market

    async def history() -> dict[str, list[Message]]:
        async with (
            exchange_over_midnight(start_us=END, speed=1e-6) as exchange,
            httpx.AsyncClient(base_url=exchange.rest_url) as client,
        ):
            return {
                product: (await client.get(f"/products/{product}/trades")).json()[::-1]
                for product in PRODUCTS
            }

    rows = asyncio.run(history())
    for product in PRODUCTS:
        last = of_type(messages, "last_match", product)
        matches = of_type(messages, "match", product)
        assert len(last) == 1
        ids = [match["trade_id"] for match in (*last, *matches)]
        assert ids == list(range(ids[0], truth[product].last_id_before(END) + 1))
        assert matches[0]["time"] < to_iso(MIDNIGHT) < matches[-1]["time"]
        own = {trade["trade_id"]: trade for trade in truth.trades(product, START - 600 * SECOND_US, END)}
        for match in matches:
            trade = own[match["trade_id"]]
            assert scaled(match["price"]) == trade["price"]
            assert scaled(match["size"]) == trade["size"]
            assert parse_iso(match["time"]) == trade["event_us"]
            assert match["side"] == ("sell" if trade["taker_side"] == Side.BUY else "buy")
        of_rest = {row["trade_id"]: row for row in rows[product]}
        for match in matches:
            row = of_rest[match["trade_id"]]
            assert {name: match[name] for name in row} == row


def test_the_same_stream_twice_is_the_same_to_the_byte() -> None:
    async def run() -> list[str | bytes]:
        async with exchange_over_midnight() as exchange:
            return await frames_until(exchange, ["matches"], to_iso(END + SECOND_US))

    def frames_from(frames: list[str | bytes], first: int) -> list[str | bytes]:
        # The first frames depend on when the client came, to the millisecond.
        return [
            frame
            for frame in frames
            if (message := json.loads(frame))["type"] == "match"
            and message["product_id"] == "BTC-USD"
            and message["trade_id"] >= first
        ]

    first, second = asyncio.run(run()), asyncio.run(run())
    start = exchange_over_midnight().market["BTC-USD"].last_id_before(MIDNIGHT)
    assert frames_from(first, start) == frames_from(second, start)
    assert len(frames_from(first, start)) > 100


def test_an_order_that_takes_several_makers_has_one_taker_order_and_one_time() -> None:
    matches = of_type(recorded(("matches",)), "match", "BTC-USD")
    orders: dict[str, set[tuple[str, str]]] = {}
    for match in matches:
        orders.setdefault(match["taker_order_id"], set()).add((match["time"], match["side"]))
    assert all(len(seen) == 1 for seen in orders.values())
    assert len(orders) < len(matches)
    assert len({match["maker_order_id"] for match in matches}) == len(matches)
    sequences = [match["sequence"] for match in matches]
    assert sequences == sorted(set(sequences))


def test_heartbeats_each_second_name_the_last_trade_also_when_the_market_is_quiet() -> None:
    messages = recorded()
    market = exchange_over_midnight().market
    for product in PRODUCTS:
        heartbeats = of_type(messages, "heartbeat", product)
        times = [parse_iso(beat["time"]) for beat in heartbeats]
        assert times == list(range(times[0], times[-1] + 1, SECOND_US))
        assert times[-1] > END
        for beat, time in zip(heartbeats, times, strict=True):
            assert beat["last_trade_id"] == market[product].last_id_before(min(time, END))


def test_following_the_updates_gives_the_book_that_trades_and_tickers_agree_with() -> None:
    messages = recorded()
    market = exchange_over_midnight().market
    for product in PRODUCTS:
        sides: dict[str, dict[int, int]] = {}
        updates = 0
        for message in messages:
            if message.get("product_id") != product or not (sides or message["type"] == "snapshot"):
                continue  # the greetings of other channels come before the snapshot
            if message["type"] == "snapshot":
                sides = {
                    "buy": {scaled(price): scaled(size) for price, size in message["bids"]},
                    "sell": {scaled(price): scaled(size) for price, size in message["asks"]},
                }
            elif message["type"] == "l2update":
                updates += 1
                for side, price, size in message["changes"]:
                    if scaled(size):
                        sides[side][scaled(price)] = scaled(size)
                    else:
                        del sides[side][scaled(price)]
                state = book_at(market[product], step_of(parse_iso(message["time"]) + 1))
                assert sides == {"buy": dict(state.bids), "sell": dict(state.asks)}
            elif message["type"] == "match":
                assert scaled(message["price"]) in sides[message["side"]]
            elif message["type"] == "ticker":
                assert scaled(message["best_bid"]) < scaled(message["best_ask"])
                assert scaled(message["best_bid"]) in sides["buy"]
                assert scaled(message["best_ask"]) in sides["sell"]
        assert updates > 20


def test_a_tickers_side_is_the_takers() -> None:
    messages = recorded()
    makers = {match["trade_id"]: match["side"] for match in of_type(messages, "match", "BTC-USD")}
    tickers = [ticker for ticker in of_type(messages, "ticker", "BTC-USD") if ticker["trade_id"] in makers]
    assert len(tickers) > 100
    assert all(ticker["side"] != makers[ticker["trade_id"]] for ticker in tickers)


def test_subscribing_and_unsubscribing_by_channel_and_product() -> None:
    async def run() -> None:
        async with exchange_over_midnight(speed=1e-6) as exchange, listening(exchange) as socket:

            async def ask(kind: str, channels: list[Any], *products: str) -> list[Message]:
                request = {"type": kind, "channels": channels, "product_ids": list(products)}
                await socket.send(json.dumps(request))
                await socket.send("{}")  # its error marks the end of the answer
                answers = []
                while (message := json.loads(await asyncio.wait_for(socket.recv(), 5)))["type"] != "error":
                    answers.append(message)
                return answers

            def listed(answer: Message) -> dict[str, list[str]]:
                return {channel["name"]: channel["product_ids"] for channel in answer["channels"]}

            answers = await ask(
                "subscribe",
                ["matches", {"name": "level2_batch", "product_ids": ["LINK-USD"]}],
                "BTC-USD",
                "LINK-USD",
            )
            assert listed(answers[0]) == {"matches": ["BTC-USD", "LINK-USD"], "level2_batch": ["LINK-USD"]}
            kinds = sorted((message["type"], message["product_id"]) for message in answers[1:])
            assert kinds == [("last_match", "BTC-USD"), ("last_match", "LINK-USD"), ("snapshot", "LINK-USD")]

            (answer,) = await ask("subscribe", ["matches"], "BTC-USD")  # nothing new: no greeting again
            (answer,) = await ask("unsubscribe", ["level2_batch"], "LINK-USD")
            assert listed(answer) == {"matches": ["BTC-USD", "LINK-USD"]}
            answers = await ask("subscribe", ["level2_batch"], "LINK-USD")
            assert [message["type"] for message in answers] == ["subscriptions", "snapshot"]
            (answer,) = await ask("unsubscribe", ["matches", "level2_batch"])
            assert listed(answer) == {}

    asyncio.run(run())


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ("{", "JSON"),
        ("[" * 50_000, "JSON"),
        ("[]", "object"),
        (b"\xff\x00", "JSON"),
        ('{"type":"hello"}', "hello"),
        ('{"type":"subscribe"}', "channels"),
        ('{"type":"subscribe","channels":["matches"]}', "no product_ids"),
        ('{"type":"subscribe","channels":["full"],"product_ids":["BTC-USD"]}', "not a channel"),
        ('{"type":"subscribe","channels":[7],"product_ids":["BTC-USD"]}', "not a channel"),
        ('{"type":"subscribe","channels":["matches"],"product_ids":["../x"]}', "not a valid product"),
        ('{"type":"subscribe","channels":["matches"],"product_ids":"BTC-USD"}', "a list"),
    ],
)
def test_a_bad_request_gets_an_error_and_subscribes_to_nothing(sent: str | bytes, reason: str) -> None:
    async def run() -> None:
        async with exchange_over_midnight() as exchange, listening(exchange) as socket:
            await socket.send(sent)
            answer = json.loads(await asyncio.wait_for(socket.recv(), 5))
            assert answer["type"] == "error"
            assert reason in answer["message"] + answer["reason"]
            await socket.send(subscribe(["BTC-USD"], ["heartbeat"]))  # and the connection still works
            answer = json.loads(await asyncio.wait_for(socket.recv(), 5))
            assert [channel["name"] for channel in answer["channels"]] == ["heartbeat"]

    asyncio.run(run())


def test_who_does_not_subscribe_in_time_is_closed() -> None:
    async def run() -> None:
        async with exchange_over_midnight(subscribe_seconds=0.2) as exchange:
            async with listening(exchange) as socket:
                await socket.send("{}")
                frames, code = await read_until_closed(socket)
            assert [json.loads(frame)["type"] for frame in frames] == ["error"]
            assert code == 1008

    asyncio.run(run())


def test_more_than_a_hundred_messages_a_second_are_too_many() -> None:
    async def run() -> None:
        async with exchange_over_midnight(speed=1e-6) as exchange, listening(exchange) as socket:
            for _ in range(150):
                await socket.send(subscribe(["BTC-USD"], ["heartbeat"]))
            frames, code = await read_until_closed(socket)
            assert code == 1008
            assert json.loads(frames[-1])["message"] == "Rate limit exceeded"

    asyncio.run(run())


def test_a_slow_client_is_cut_off_and_others_go_on() -> None:
    async def run() -> None:
        async with (
            SimulatedExchange(["BTC-USD"], rate=20_000.0, most_unsent=200_000) as exchange,
            connect(exchange.websocket_url, max_queue=1) as slow,
            connect(exchange.websocket_url, max_queue=None) as quick,
        ):
            await slow.send(subscribe(["BTC-USD"], ["matches"]))
            await quick.send(subscribe(["BTC-USD"], ["heartbeat"]))
            async with asyncio.timeout(20):
                while exchange.stream.client_count == 2:
                    await asyncio.sleep(0.05)
            _, code = await read_until_closed(slow)
            assert code is None
            for _ in range(2):
                await asyncio.wait_for(quick.recv(), 5)

    asyncio.run(run())


def test_fifty_products_on_one_connection() -> None:
    names = [f"{chr(65 + i // 26)}{chr(65 + i % 26)}-USD" for i in range(50)]

    async def run() -> list[Message]:
        async with SimulatedExchange(names, rate=500.0, start_us=START, speed=3.0, waits=True) as exchange:
            return await messages_until(exchange, ALL_CHANNELS, to_iso(START + 4 * SECOND_US))

    messages = asyncio.run(run())
    for kind in ("last_match", "ticker", "snapshot", "heartbeat", "l2update"):
        assert {message["product_id"] for message in of_type(messages, kind)} == set(names)
    # Some products have a minute without trades just then.
    assert len({message["product_id"] for message in of_type(messages, "match")}) > 30
