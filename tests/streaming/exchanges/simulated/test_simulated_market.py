"""The market: the same for the same seed, numbered without holes, plausible."""

import hashlib
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.market.exact import LIMIT
from lakehouse.market.product import InvalidProductError
from lakehouse.market.time import DAY_US, HOUR_US, MINUTE_US, SECOND_US, parse_iso
from lakehouse.settings import USD_PRODUCTS
from streaming.exchanges.simulated.activity import GENESIS_US
from streaming.exchanges.simulated.market import SimulatedMarket, Trades

DAY = parse_iso("2026-03-14T00:00:00Z")
MARKET = SimulatedMarket(7, USD_PRODUCTS, 60.0)

products = st.sampled_from(USD_PRODUCTS)
minutes = st.integers(0, 6 * 365 * 1440).map(lambda minute: GENESIS_US + minute * MINUTE_US)


def joined(*parts: Trades) -> bytes:
    return b"".join(part.tobytes() for part in parts)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**63), products, minutes, st.sampled_from([1.0, 60.0, 900.0]))
def test_two_markets_of_one_seed_agree_to_the_byte(seed: int, product: str, start: int, rate: float) -> None:
    first = SimulatedMarket(seed, USD_PRODUCTS, rate).trades(product, start, start + MINUTE_US)
    second = SimulatedMarket(seed, USD_PRODUCTS, rate).trades(product, start, start + MINUTE_US)
    assert first.tobytes() == second.tobytes()


def test_another_process_makes_the_same_bytes() -> None:
    program = (
        "import sys, hashlib\n"
        "from streaming.exchanges.simulated.market import SimulatedMarket\n"
        f"market = SimulatedMarket(7, {USD_PRODUCTS!r}, 60.0)\n"
        f"trades = market.trades('SOL-USD', {DAY}, {DAY + HOUR_US})\n"
        "print(hashlib.sha256(trades.tobytes()).hexdigest())\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    here = hashlib.sha256(MARKET.trades("SOL-USD", DAY, DAY + HOUR_US).tobytes()).hexdigest()
    assert answer.stdout.strip() == here


@settings(max_examples=60, deadline=None)
@given(products, minutes, st.lists(st.integers(0, 3 * MINUTE_US), max_size=6))
def test_any_cut_of_time_gives_the_same_trades(product: str, start: int, cuts: list[int]) -> None:
    borders = [start, *sorted(start + cut for cut in cuts), start + 3 * MINUTE_US]
    parts = [MARKET.trades(product, a, b) for a, b in pairwise(borders)]
    assert joined(*parts) == joined(MARKET.trades(product, start, start + 3 * MINUTE_US))


@settings(max_examples=60, deadline=None)
@given(products, minutes)
def test_ids_and_times_lead_to_each_other(product: str, start: int) -> None:
    market = MARKET[product]
    trades = market.between(start, start + 5 * MINUTE_US)
    before = market.last_id_before(start)
    assert (trades["trade_id"] == before + 1 + np.arange(len(trades))).all()
    assert market.last_id_before(start + 5 * MINUTE_US) == before + len(trades)
    if len(trades):
        assert joined(market.by_id(before + 1, before + 1 + len(trades))) == joined(trades)
        middle = trades[len(trades) // 2]
        earlier = int((trades["event_us"] < middle["event_us"]).sum())
        assert market.last_id_before(int(middle["event_us"])) == before + earlier


@pytest.mark.parametrize("product", USD_PRODUCTS)
def test_ids_and_prices_go_on_over_midnight(product: str) -> None:
    trades = MARKET.trades(product, DAY - HOUR_US, DAY + HOUR_US)
    assert (np.diff(trades["trade_id"]) == 1).all()
    assert (np.diff(trades["event_us"]) >= 0).all()
    at = int(np.searchsorted(trades["event_us"], DAY))
    assert 0 < at < len(trades)
    step = abs(int(trades["price"][at]) - int(trades["price"][at - 1])) / int(trades["price"][at])
    assert step < 0.01


def test_the_first_trade_is_number_one_and_nothing_is_before_it() -> None:
    market = MARKET["BTC-USD"]
    assert market.last_id_before(GENESIS_US) == 0
    assert len(market.between(GENESIS_US - DAY_US, GENESIS_US)) == 0
    assert market.by_id(-5, 3)["trade_id"].tolist() == [1, 2]
    with pytest.raises(ValueError, match="no trade"):
        market.by_id(2**62, 2**62 + 1)


@pytest.mark.parametrize("product", ["BTC-USD", "DOGE-USD", "PEPE-USD", "ETH-BTC", "A1B2C3D4E5-USDT"])
def test_numbers_are_positive_exact_and_on_the_products_steps(product: str) -> None:
    market = SimulatedMarket(3, [product], 5.0)
    model = market[product].model
    for year in range(6):
        trades = market.trades(product, DAY - year * 365 * DAY_US, DAY - year * 365 * DAY_US + HOUR_US)
        assert len(trades)
        assert (trades["price"] > 0).all()
        assert (trades["size"] > 0).all()
        assert (trades["price"] % model.tick == 0).all()
        assert (trades["size"] % model.lot == 0).all()
        assert (trades["price"] < LIMIT).all()
        assert (trades["size"] < LIMIT).all()


def test_the_rate_is_what_was_asked_for() -> None:
    for rate in (1.0, 60.0, 50_000.0):
        market = SimulatedMarket(11, USD_PRODUCTS, rate)
        first, end = DAY - 200 * DAY_US, DAY
        made = sum(
            market[product].last_id_before(end) - market[product].last_id_before(first)
            for product in USD_PRODUCTS
        )
        assert made / (200 * 86_400) == pytest.approx(rate, rel=0.02)


def test_the_market_has_the_features_of_a_market() -> None:
    market = SimulatedMarket(7, USD_PRODUCTS, 8.0)
    liquid, thin = (market.trades(product, DAY, DAY + DAY_US) for product in ("BTC-USD", "LINK-USD"))
    same_moment = np.diff(liquid["event_us"]) == 0
    assert 0.3 < same_moment.mean() < 0.6
    assert len(np.unique(liquid["event_us"] // MINUTE_US)) > 1430
    assert 1000 < len(np.unique(thin["event_us"] // MINUTE_US)) < 1440  # minutes without a trade
    seconds = np.bincount((liquid["event_us"] - DAY) // SECOND_US)
    assert seconds.max() > 8 * seconds.mean()  # bursts

    every_minute = np.arange(DAY // SECOND_US, (DAY + DAY_US) // SECOND_US, 60)
    returns = {
        product: np.diff(np.log(MARKET[product].path.at(every_minute))) for product in USD_PRODUCTS[:2]
    }
    assert np.corrcoef(returns["BTC-USD"], returns["ETH-USD"])[0, 1] > 0.4
    calm = [float(np.std(part)) for part in np.array_split(returns["BTC-USD"], 24)]
    assert max(calm) > 1.5 * min(calm)  # volatility changes


def test_prices_jump_now_and_then() -> None:
    seconds = np.arange(DAY // SECOND_US - 2 * 86_400, DAY // SECOND_US)
    steps = np.abs(np.diff(np.log(MARKET["BTC-USD"].path.at(seconds))))
    assert steps.max() > 40 * np.median(steps)


def test_a_name_that_is_no_product_is_refused() -> None:
    with pytest.raises(InvalidProductError):
        SimulatedMarket(1, ["../../etc"], 1.0)
