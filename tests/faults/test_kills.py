"""kill -9 of every worker at seeded random moments: nothing lost, nothing doubled."""

import json
import random
import time
from pathlib import Path

import pyarrow as pa
import pytest
from free_ports import free_ports
from market_recording import record_market
from running_workers import STAGES, Log, Workers, workers
from truth import check_rest_candles, check_tables

from lakehouse.home import Home
from lakehouse.market.time import now_us
from lakehouse.stores import sql
from streaming.exchanges.simulated.market import SimulatedMarket

PRODUCTS = ("BTC-USD", "ETH-USD", "LINK-USD")
RATE = 800.0
NAMES = ("exchange", "feed", *STAGES)


def kill_again_and_again(
    platform: Workers, chances: random.Random, *, times: int, longest: float
) -> dict[str, int]:
    """Kill each worker so often, each at moments of its own, and start it again at once.

    Two of three kills come while it works, up to `longest` seconds after it has begun to; the third while
    it is still repairing what the last one left.
    """
    due: dict[str, float | None] = dict.fromkeys(NAMES)
    kills = dict.fromkeys(NAMES, 0)
    while due:
        time.sleep(0.02)
        platform.check_alive()
        for name, moment in list(due.items()):
            if moment is None:
                if platform.is_working(name):
                    due[name] = time.monotonic() + chances.uniform(0, longest)
            elif time.monotonic() >= moment:
                platform.kill(name)
                platform.start(name)
                kills[name] += 1
                early = kills[name] % 3 == 2
                due[name] = time.monotonic() + chances.uniform(0.1, 2.0) if early else None
                if kills[name] == times:
                    del due[name]
    return kills


@pytest.mark.timeout(1800)
def test_workers_killed_at_any_moment_lose_and_double_nothing(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    full = request.config.getoption("--full")
    seed = request.config.getoption("--seed")
    websocket_port, rest_port = free_ports(2)
    market = SimulatedMarket(seed, PRODUCTS, RATE)
    with workers(
        tmp_path,
        feed="simulated",
        products=",".join(PRODUCTS),
        simulated_seed=seed,
        simulated_rate=RATE,
        simulated_rest_rate=2_000,
        simulated_websocket_port=websocket_port,
        simulated_rest_port=rest_port,
        commit_interval_ms=100,
    ) as platform:
        for name in NAMES:
            platform.start(name)
        log = Log(platform.open_spine())
        platform.wait_until(lambda: log.covers(dict.fromkeys(PRODUCTS, 1)), 60, "trades of every product")
        kills = kill_again_and_again(
            platform, random.Random(seed), times=50 if full else 2, longest=3.0 if full else 1.0
        )
        assert set(kills.values()) == {50 if full else 2}
        now = now_us()
        last_ids = {product: market[product].last_id_before(now) for product in PRODUCTS}
        platform.wait_until(lambda: log.covers(last_ids), 100, "all trades")
        log.close()
        platform.stop_when_all_is_committed()
        trades = check_tables(platform.home, platform.open_spine, market)
        if full:
            rest = f"http://127.0.0.1:{rest_port}"
            assert min(check_rest_candles(platform.home, rest, product) for product in PRODUCTS) >= 1
        platform.stop("exchange")
        print(f"{trades:,} trades; kills {kills}")


@pytest.mark.timeout(1800)
def test_a_drain_killed_at_any_moment_ends_in_the_same_tables(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    full = request.config.getoption("--full")
    chances = random.Random(request.config.getoption("--seed"))
    recording = tmp_path / "market.jsonl.zst"
    frames = record_market(
        recording,
        seed=chances.randrange(10**6),
        seconds=60 if full else 12,
        rate=1_000.0,
        faults="gap:0.001,duplicate:0.002,reordering:0.002,late:0.001:1-60,malformed:0.001",
    )
    with workers(tmp_path / "undisturbed", feed=f"recording:{recording}", commit_interval_ms=50) as platform:
        started = time.monotonic()
        summary = drained(platform)
        duration = time.monotonic() - started
        expected = contents(platform.home)
    assert summary["received"] == len(frames)
    assert summary["quarantined"] > 0
    assert summary["gaps"] > 0

    kills_wanted, kills, round_ = 50 if full else 3, 0, 0
    while kills < kills_wanted:
        round_ += 1
        with workers(
            tmp_path / f"round-{round_}", feed=f"recording:{recording}", commit_interval_ms=50
        ) as platform:
            for _ in range(chances.randint(2, 8) if full else kills_wanted):
                process = platform.start("drain")
                time.sleep(chances.uniform(0.3, duration))
                if process.poll() is None:
                    platform.kill("drain")
                    kills += 1
                else:
                    assert platform.running.pop("drain").returncode == 0, platform.log("drain")
            again = drained(platform)
            for name, rows in contents(platform.home).items():
                assert rows.equals(expected[name]), f"the table {name} differs"
        assert again["received"] == again["accepted"] + again["duplicates"] + again["quarantined"]
        assert {k: again[k] for k in TABLES_COUNTED} == {k: summary[k] for k in TABLES_COUNTED}
    print(f"{len(frames):,} frames; {kills} kills in {round_} rounds; undisturbed {duration:.1f} s")


TABLES_COUNTED = ("received", "trades", "quotes", "book", "candles", "gaps")


def drained(platform: Workers) -> dict[str, int]:
    """Drain to the end and return the summary."""
    process = platform.start("drain")
    assert process.wait(240) == 0, platform.log("drain")
    del platform.running["drain"]
    summary: dict[str, int] = json.loads(platform.log("drain").strip().splitlines()[-1])
    return summary


def contents(home: Home) -> dict[str, pa.Table]:
    """All rows, without the clock of the run: whatever a recording decides has to be the same again."""
    with sql.connect(home) as tables:
        found: dict[str, pa.Table] = {
            name: tables.sql(f"SELECT * EXCLUDE (recorded_at) FROM {name} ORDER BY ALL").to_arrow_table()
            for name in ("trades", "quotes", "book", "candles_1m", "gaps", "quarantine")
        }
        found["intake"] = tables.sql(
            "SELECT product, day, kind, sum(accepted), sum(quarantined), sum(late) FROM intake "
            "WHERE accepted + quarantined > 0 GROUP BY ALL ORDER BY ALL"
        ).to_arrow_table()
        assert tables.execute(
            "SELECT count(*) FROM intake WHERE received <> accepted + duplicates + quarantined"
        ).fetchone() == (0,)
    return found
