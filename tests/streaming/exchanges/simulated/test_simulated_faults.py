"""Each fault as a client sees it, the record of it, and plans that make sense or are refused."""

import asyncio
import json
from collections import Counter
from itertools import pairwise
from typing import Any

import httpx
import pytest
from exchange_client import Message, frames_until, listening, of_type, read_until_closed, subscribe

from lakehouse.market.time import SECOND_US, parse_iso, to_iso
from streaming.exchanges.simulated.faults import FaultKind, FaultPlanError, Injection, parse_plan
from streaming.exchanges.simulated.server import SimulatedExchange

START = parse_iso("2026-03-14T12:00:00Z")
END = START + 30 * SECOND_US
PRODUCT = "BTC-USD"


def exchange_of(faults: str = "", **arguments: Any) -> SimulatedExchange:
    options: dict[str, Any] = {"rate": 50.0, "speed": 60.0, "start_us": START, "end_us": END, "waits": True}
    return SimulatedExchange([PRODUCT], faults=faults, **(options | arguments))


def watched(
    faults: str, until_seconds: int = 1, wishes: tuple[tuple[str, int], ...] = (), channels: str = "matches"
) -> tuple[list[str | bytes], list[Injection], SimulatedExchange]:
    """Return what a client saw until the market's end, what was injected, and the exchange."""

    async def run() -> tuple[list[str | bytes], list[Injection], SimulatedExchange]:
        async with exchange_of(faults) as exchange:
            for kind, amount in wishes:
                exchange.faults.request(FaultKind(kind), PRODUCT, amount)
            end = to_iso(END + until_seconds * SECOND_US)
            frames = await frames_until(exchange, channels.split(), end)
            return frames, list(exchange.faults.injected), exchange

    return asyncio.run(run())


def decoded(frames: list[str | bytes]) -> list[Message]:
    messages = []
    for frame in frames:
        try:
            messages.append(json.loads(frame))
        except ValueError:
            continue  # a damaged frame; the tests of those look at the frames themselves
    return messages


def ids_of(frames: list[str | bytes]) -> list[int]:
    return [message["trade_id"] for message in of_type(decoded(frames), "match")]


def true_ids(frames: list[str | bytes], exchange: SimulatedExchange) -> list[int]:
    (last,) = of_type(decoded(frames), "last_match")
    return list(range(last["trade_id"] + 1, exchange.market[PRODUCT].last_id_before(END) + 1))


def of_kind(injected: list[Injection], kind: FaultKind) -> list[Injection]:
    assert injected
    assert {injection.kind for injection in injected} == {kind}
    return injected


def test_without_faults_everything_arrives_once_and_in_order() -> None:
    frames, injected, exchange = watched("")
    assert ids_of(frames) == true_ids(frames, exchange)
    assert injected == []


def test_a_gap_is_withheld_and_rest_has_it() -> None:
    async def run() -> None:
        async with exchange_of("gap:0.005:2-6") as exchange, httpx.AsyncClient() as client:
            frames = await frames_until(exchange, ["matches"], to_iso(END + SECOND_US))
            gaps = of_kind(list(exchange.faults.injected), FaultKind.GAP)
            withheld = {i for gap in gaps for i in range(gap.first_trade_id, gap.last_trade_id + 1)}
            wanted = true_ids(frames, exchange)
            assert ids_of(frames) == [i for i in wanted if i not in withheld]
            gap = gaps[0]
            answer = await client.get(
                f"{exchange.rest_url}/products/{PRODUCT}/trades",
                params={"before": gap.first_trade_id - 1, "after": gap.last_trade_id + 1},
            )
            ids = list(range(gap.last_trade_id, gap.first_trade_id - 1, -1))
            assert [row["trade_id"] for row in answer.json()] == ids

    asyncio.run(run())


def test_a_hole_is_missing_from_rest_as_well() -> None:
    async def run() -> None:
        async with exchange_of() as exchange, httpx.AsyncClient(base_url=exchange.rest_url) as client:
            answer = await client.post(
                "/control/faults", json={"kind": "hole", "product": PRODUCT, "amount": 4}
            )
            assert answer.status_code == 202
            frames = await frames_until(exchange, ["matches"], to_iso(END + SECOND_US))
            (hole,) = (await client.get("/control/faults")).json()
            assert (hole["kind"], hole["product"], hole["amount"]) == ("hole", PRODUCT, 4)
            missing = list(range(hole["first_trade_id"], hole["last_trade_id"] + 1))
            assert len(missing) == 4
            assert ids_of(frames) == [i for i in true_ids(frames, exchange) if i not in missing]
            rows = await client.get(
                f"/products/{PRODUCT}/trades", params={"after": missing[-1] + 3, "limit": 8}
            )
            ids = [missing[-1] + 2, missing[-1] + 1, missing[0] - 1, missing[0] - 2]
            assert [row["trade_id"] for row in rows.json()] == ids

    asyncio.run(run())


def test_duplicates_come_again() -> None:
    frames, injected, exchange = watched("duplicate:0.01:1-2")
    counts = Counter(ids_of(frames))
    for duplicate in of_kind(injected, FaultKind.DUPLICATE):
        assert counts.pop(duplicate.first_trade_id) == 1 + duplicate.amount
    assert set(counts.values()) == {1}
    assert sorted(set(ids_of(frames))) == true_ids(frames, exchange)


def test_reordered_matches_come_after_later_ones() -> None:
    frames, injected, exchange = watched("reordering:0.01:1-3")
    ids = ids_of(frames)
    for moved in of_kind(injected, FaultKind.REORDERING):
        later = moved.first_trade_id + moved.amount
        if later <= true_ids(frames, exchange)[-1] and later in ids:
            assert ids.index(moved.first_trade_id) > ids.index(moved.first_trade_id + 1)
    assert ids != sorted(ids)
    missing = set(true_ids(frames, exchange)) - set(ids)
    assert missing <= {moved.first_trade_id for moved in injected[-3:]}  # waiting for trades after the end


def test_late_trades_come_seconds_later_with_their_own_time() -> None:
    frames, injected, exchange = watched("late:0.005:3-8", until_seconds=10)
    messages = decoded(frames)
    late = {injection.first_trade_id: injection for injection in of_kind(injected, FaultKind.LATE)}
    clock = ""
    for message in messages:
        if message["type"] == "heartbeat":
            clock = message["time"]
        elif message["type"] == "match" and message["trade_id"] in late:
            assert parse_iso(message["time"]) == late[message["trade_id"]].at_us
            waited = parse_iso(clock) - late[message["trade_id"]].at_us
            assert waited >= (late[message["trade_id"]].amount - 1) * SECOND_US
    assert sorted(ids_of(frames)) == true_ids(frames, exchange)


def test_malformed_matches_can_not_be_accepted() -> None:
    frames, injected, exchange = watched("malformed:0.05")
    hurt = {injection.first_trade_id for injection in of_kind(injected, FaultKind.MALFORMED)}
    good, bad = [], 0
    for frame in frames:
        if isinstance(frame, bytes) or not frame.endswith("}"):
            bad += 1
            continue
        message = json.loads(frame)
        if message["type"] != "match":
            continue
        broken = (
            message["trade_id"] < 0
            or message["price"] == "NaN"
            or message["size"] == "1e400"
            or message["time"].startswith("1970")
            or message["product_id"] != PRODUCT
        )
        bad += broken
        if not broken:
            good.append(message["trade_id"])
    assert bad == len(hurt) > 20
    assert good == [i for i in true_ids(frames, exchange) if i not in hurt]


def test_a_stall_is_silence_and_then_everything() -> None:
    frames, injected, exchange = watched("", wishes=(("stall", 5),))
    (stall,) = of_kind(injected, FaultKind.STALL)
    assert ids_of(frames) == true_ids(frames, exchange)
    assert stall.amount == 5

    async def run() -> None:
        async with exchange_of(speed=1.0, end_us=None) as exchange, listening(exchange) as socket:
            await socket.send(subscribe([PRODUCT], ["matches", "heartbeat"]))
            exchange.faults.request(FaultKind.STALL, PRODUCT, 1)
            loop = asyncio.get_running_loop()
            longest, before = 0.0, loop.time()
            async with asyncio.timeout(3):
                while longest < 0.8:
                    await socket.recv()
                    longest, before = max(longest, loop.time() - before), loop.time()

    asyncio.run(run())


def test_a_stall_ends_also_while_the_exchange_waits_for_its_clients() -> None:
    """What a stall keeps back is megabytes, and none of it is the client's slowness."""

    async def run() -> None:
        async with (
            exchange_of(speed=20.0, rate=5_000.0, end_us=None, waits=True) as exchange,
            listening(exchange) as socket,
        ):
            await socket.send(subscribe([PRODUCT], ["matches", "ticker", "level2_batch"]))
            exchange.faults.request(FaultKind.STALL, PRODUCT, 4)
            loop = asyncio.get_running_loop()
            longest, before = 0.0, loop.time()
            async with asyncio.timeout(10):
                while longest < 0.15 or exchange.stream.position_us < START + 10 * SECOND_US:
                    await socket.recv()
                    longest, before = max(longest, loop.time() - before), loop.time()

    asyncio.run(run())


def test_a_skewed_clock_changes_heartbeats_tickers_and_time_but_no_trade() -> None:
    frames, injected, exchange = watched("", wishes=(("skew", 10),), channels="matches ticker")
    (skew,) = of_kind(injected, FaultKind.SKEW)
    messages = decoded(frames)
    times = {match["trade_id"]: match["time"] for match in of_type(messages, "match")}
    own = {int(trade["trade_id"]): trade for trade in exchange.market.trades(PRODUCT, START, END)}
    assert all(parse_iso(time) == own[trade_id]["event_us"] for trade_id, time in times.items())
    wrong = [
        parse_iso(ticker["time"]) - int(own[ticker["trade_id"]]["event_us"])
        for ticker in of_type(messages, "ticker")
        if ticker["trade_id"] in own
    ]
    assert 0 in wrong  # before and after
    assert len(set(wrong)) == 2
    assert abs(sum(set(wrong))) >= SECOND_US
    beats = [parse_iso(beat["time"]) for beat in of_type(messages, "heartbeat")]
    steps = {after - before for before, after in pairwise(beats)}
    assert 1 <= len(steps - {SECOND_US}) <= 2  # away (if that was after the first beat) and back
    assert skew.amount == 10


def test_a_disconnect_cuts_every_client_and_the_exchange_goes_on() -> None:
    async def run() -> None:
        async with (
            exchange_of(speed=1.0, end_us=None) as exchange,
            httpx.AsyncClient(base_url=exchange.rest_url) as client,
        ):
            sockets = [await listening(exchange) for _ in range(2)]
            for socket in sockets:
                await socket.send(subscribe([PRODUCT], ["matches"]))
                await asyncio.wait_for(socket.recv(), 5)
            await client.post("/control/faults", json={"kind": "disconnect"})
            for socket in sockets:
                _, code = await read_until_closed(socket)
                assert code is None
            (cut,) = (await client.get("/control/faults")).json()
            assert cut["kind"] == "disconnect"
            async with listening(exchange) as again:
                await again.send(subscribe([PRODUCT], ["matches"]))
                kinds = [json.loads(await asyncio.wait_for(again.recv(), 5))["type"] for _ in range(3)]
                assert kinds == ["subscriptions", "last_match", "match"]

    asyncio.run(run())


def test_rest_refuses_by_plan_and_by_request() -> None:
    async def run() -> None:
        async with exchange_of("429:0.2:1-3") as exchange, httpx.AsyncClient() as client:
            codes = [(await client.get(f"{exchange.rest_url}/time")).status_code for _ in range(60)]
            refused = codes.count(429)
            assert 0 < refused < 60
            assert len(of_kind(list(exchange.faults.injected), FaultKind.TOO_MANY_REQUESTS)) == refused
        async with exchange_of() as exchange, httpx.AsyncClient(base_url=exchange.rest_url) as client:
            await client.post("/control/faults", json={"kind": "429", "amount": 2})
            codes = [(await client.get("/time")).status_code for _ in range(4)]
            assert codes == [429, 429, 200, 200]

    asyncio.run(run())


def test_a_plan_hurts_the_same_trades_every_time() -> None:
    plan = "gap:0.005,duplicate:0.01,reordering:0.01,late:0.01:2-4,malformed:0.01"
    runs = [watched(plan, until_seconds=5) for _ in range(2)]
    from_id = max(true_ids(frames, exchange)[0] for frames, _, exchange in runs) + 30
    first, second = ([one for one in injected if one.first_trade_id >= from_id] for _, injected, _ in runs)
    assert first == second
    assert {injection.kind for injection in first} == {
        FaultKind(part.split(":")[0]) for part in plan.split(",")
    }


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        ("gaps:0.1", "there are disconnect, gap"),
        ("gap", "KIND:CHANCE"),
        ("gap:often", "from 0 to 1"),
        ("gap:nan", "from 0 to 1"),
        ("gap:2", "from 0 to 1"),
        ("gap:0.1,gap:0.2", "twice"),
        ("stall:0.1:9-2", "goes up"),
        ("stall:0.1:0-2", "at least 1"),
        ("stall:0.1:long", "LOW-HIGH"),
        ("hole:0.1", "only requested"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(plan: str, complaint: str) -> None:
    with pytest.raises(FaultPlanError, match=complaint):
        parse_plan(plan)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"kind":"meteor"}',
        b'{"kind":"gap","amount":0}',
        b'{"kind":"gap","product":"X-USD"}',
        b'{"a":1}',
    ],
)
def test_a_request_that_makes_no_sense_is_refused(body: bytes) -> None:
    async def run() -> None:
        async with exchange_of() as exchange, httpx.AsyncClient(base_url=exchange.rest_url) as client:
            answer = await client.post("/control/faults", content=body)
            assert answer.status_code in (400, 404)
            assert answer.json()["message"]

    asyncio.run(run())
