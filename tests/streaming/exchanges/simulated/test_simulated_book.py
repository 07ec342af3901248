"""The book: never crossed, every trade within what it showed, its changes lead from state to state."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.market.book import BookSide
from lakehouse.market.time import MINUTE_US, SECOND_US, parse_iso
from lakehouse.market.trade import Side
from streaming.exchanges.simulated.book import StepBooks, book_at, step_of, tops_after
from streaming.exchanges.simulated.ladder import STEP_US
from streaming.exchanges.simulated.market import STEPS, SimulatedMarket

START = parse_iso("2025-06-01T00:00:00Z") // SECOND_US
MARKET = SimulatedMarket(5, ["BTC-USD", "DOGE-USD", "LINK-USD"], 900.0)

products = st.sampled_from(MARKET.products)
seconds = st.integers(0, 400 * 86_400).map(lambda second: START + second)


@settings(max_examples=40, deadline=None)
@given(products, seconds)
def test_changes_lead_from_each_book_to_the_next(product: str, second: int) -> None:
    market = MARKET[product]
    first = second * STEPS
    books = StepBooks(market, first, 2 * STEPS, market.seconds(second, second + 2))
    sides: dict[BookSide, dict[int, int]] = {
        BookSide.BID: dict(books.state(first).bids),
        BookSide.ASK: dict(books.state(first).asks),
    }
    for step in range(first + 1, first + 2 * STEPS):
        for change in books.changes(step):
            if change.size:
                sides[change.side][change.price] = change.size
            else:
                del sides[change.side][change.price]  # only what is there is taken away
        state = book_at(market, step)
        assert sides[BookSide.BID] == dict(state.bids)
        assert sides[BookSide.ASK] == dict(state.asks)
        assert max(sides[BookSide.BID]) < min(sides[BookSide.ASK])


@settings(max_examples=40, deadline=None)
@given(products, seconds)
def test_trades_take_from_the_best_levels_what_the_book_showed(product: str, second: int) -> None:
    market = MARKET[product]
    trades = market.seconds(second, second + 1)
    tops = tops_after(market, trades)
    for step in np.unique(trades["event_us"] // STEP_US).tolist():
        state = book_at(market, step)
        bids, asks = dict(state.bids), dict(state.asks)
        for place in np.flatnonzero(trades["event_us"] // STEP_US == step).tolist():
            trade = trades[place]
            price, size = int(trade["price"]), int(trade["size"])
            side, best = (asks, min(asks)) if trade["taker_side"] == Side.BUY else (bids, max(bids))
            assert price == best
            assert side[price] >= size
            side[price] -= size
            if side[price] == 0:
                del side[price]
            assert (tops.bid[place], tops.bid_size[place]) == (max(bids), bids[max(bids)])
            assert (tops.ask[place], tops.ask_size[place]) == (min(asks), asks[min(asks)])


def test_some_orders_take_several_levels() -> None:
    trades = MARKET.trades("BTC-USD", START * SECOND_US, START * SECOND_US + MINUTE_US)
    assert trades["depth"].max() >= 3
    swept = trades[1:][(np.diff(trades["order"]) == 0) & (np.diff(trades["price"]) != 0)]
    assert len(swept)


def test_the_published_step_is_the_one_that_began_before() -> None:
    assert step_of(10 * STEP_US) == 9
    assert step_of(10 * STEP_US + 1) == 10
