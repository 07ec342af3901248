"""All nine faults at once: the tables end with exactly the exchange's own trades and candles."""

import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from running_workers import STAGES, Log, fixed_exchange, ports_of, workers
from truth import check_rest_candles, check_tables

from lakehouse.market.time import SECOND_US, parse_iso
from streaming.exchanges.simulated.faults import FaultKind
from streaming.exchanges.simulated.market import SimulatedMarket

PRODUCTS = ["BTC-USD", "ETH-USD", "SOL-USD", "LINK-USD"]
RATE = 2_000
SPEED = 6.0
"""12,000 trades a second with everything that goes with them: what two busy cores keep up with.

While the feed isn't connected the market goes on at this speed, so the faster it is, the more of it comes
over REST and the less over the socket.
"""
START = parse_iso("2026-03-01T23:59:20Z")
"""Just before midnight, so that the trades lie in two days."""

# How often each fault is planned among a minute's 120,000 trades.
PLAN = {
    FaultKind.DISCONNECT: 0.7,
    FaultKind.GAP: 20.0,
    FaultKind.DUPLICATE: 60.0,
    FaultKind.REORDERING: 60.0,
    FaultKind.LATE: 30.0,
    FaultKind.MALFORMED: 40.0,
    FaultKind.STALL: 1.0,
    FaultKind.SKEW: 0.7,
}


def plan() -> str:
    chances = [f"{kind}:{times / (60 * RATE):.9f}" for kind, times in PLAN.items()]
    return ",".join([*chances, f"{FaultKind.TOO_MANY_REQUESTS}:0.05:1-3"])


def exchange_seconds(rest: str) -> float:
    answer = httpx.get(f"{rest}/time", timeout=30)
    return float(answer.json()["epoch"]) if answer.is_success else 0.0


def ask_for(rest: str, kind: FaultKind, product: str = "", amount: int | None = None) -> None:
    fault = {"kind": kind, "product": product} | ({} if amount is None else {"amount": amount})
    httpx.post(f"{rest}/control/faults", json=fault, timeout=30).raise_for_status()


def run_market(
    folder: Path,
    seed: int,
    *,
    seconds: int,
    speed: float,
    faults: str,
    also: list[tuple[FaultKind, int]],
    candles: int,
) -> tuple[SimulatedMarket, dict[str, list[dict[str, object]]]]:
    """Run a market from its start to its end through all workers; return it and the faults it suffered.

    `also` are faults to ask for, one after the other for each product, while the market runs.
    """
    lead = int(10 * speed)  # the feed needs some seconds to connect, on a busy machine more
    end_us = START + (lead + seconds) * SECOND_US
    market = SimulatedMarket(seed, PRODUCTS, RATE)
    last_ids = {product: market[product].last_id_before(end_us) for product in PRODUCTS}
    with (
        fixed_exchange(
            folder,
            products=PRODUCTS,
            seed=seed,
            rate=RATE,
            speed=speed,
            start_us=START,
            end_us=end_us,
            faults=faults,
            waits=True,
            rest_rate=2_000,
        ) as (websocket, rest),
        workers(
            folder,
            feed="simulated",
            products=",".join(PRODUCTS),
            commit_interval_ms=500,
            # Lateness is the trades' own time: this much is ten minutes of the receiver's.
            lateness_minutes=int(10 * speed),
            watchdog_seconds=5,
            **ports_of(websocket, rest),
        ) as platform,
    ):
        for name in ("feed", *STAGES):
            platform.start(name)
        log = Log(platform.open_spine())
        platform.wait_until(
            lambda: log.covers(dict.fromkeys(PRODUCTS, 1)) or bool(log.known), 30, "trades came"
        )
        asked = [
            (kind, product, amount)
            for kind, amount in also
            for product in ([""] if kind is FaultKind.TOO_MANY_REQUESTS else PRODUCTS)
        ]
        for kind, product, amount in asked:
            ask_for(rest, kind, product, amount)
            time.sleep(seconds / speed / 4 / len(asked))
        real_seconds = 60 + 20 * seconds / speed
        platform.wait_until(lambda: log.covers(last_ids), real_seconds, "all trades")
        log.close()
        time.sleep(2)  # reordered trades are in; the last gaps are closed
        platform.stop_when_all_is_committed()
        injected: dict[str, list[dict[str, object]]] = {}
        for fault in httpx.get(f"{rest}/control/faults", timeout=60).json():
            injected.setdefault(str(fault["kind"]), []).append(fault)
        holes = {
            product: np.unique(
                [
                    trade_id
                    for fault in injected.get(FaultKind.HOLE, ())
                    if fault["product"] == product
                    for trade_id in range(
                        int(str(fault["first_trade_id"])), int(str(fault["last_trade_id"])) + 1
                    )
                ]
            )
            for product in PRODUCTS
        }
        trades = check_tables(platform.home, platform.open_spine, market, last_ids=last_ids, holes=holes)
        assert trades > seconds * RATE * 0.5
        compared = [check_rest_candles(platform.home, rest, product) for product in PRODUCTS]
        assert min(compared) >= candles
        print(f"{trades:,} trades;", ", ".join(f"{kind}: {len(all_)}" for kind, all_ in injected.items()))
    return market, injected


@pytest.mark.timeout(1800)
def test_nine_faults_at_once_change_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    full = request.config.getoption("--full")
    also = [(kind, 3) for kind in FaultKind if kind is not FaultKind.HOLE]
    _, injected = run_market(
        tmp_path,
        request.config.getoption("--seed"),
        seconds=1800 if full else 45,
        speed=SPEED,
        faults=plan(),
        also=also,
        candles=25 if full else 0,
    )
    assert set(injected) == set(FaultKind) - {FaultKind.HOLE}


@pytest.mark.timeout(1800)
def test_what_nobody_has_is_listed_and_nothing_else(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    full = request.config.getoption("--full")
    _, injected = run_market(
        tmp_path,
        request.config.getoption("--seed") + 1,
        seconds=300 if full else 12,
        speed=SPEED,
        faults=plan() if full else "",
        also=[(FaultKind.HOLE, 7)] * (5 if full else 1),
        candles=0,
    )
    assert len(injected[FaultKind.HOLE]) == len(PRODUCTS) * (5 if full else 1)
