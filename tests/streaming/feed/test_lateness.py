import numpy as np
from feed_frames import START_US, Published, match, new_handler
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.candles.open_minutes import OpenMinutes
from lakehouse.market.time import MINUTE_US, SECOND_US
from lakehouse.market.trade import Exchange, Lateness
from streaming.engines.embedded.decode import trade_columns
from streaming.feed.handler import ProductState
from streaming.spine.contract import Batch, Partition
from streaming.spine.topics import TRADES

BEGIN_US = START_US - START_US % MINUTE_US


def published(seconds: list[int], states: dict[str, ProductState] | None = None) -> Published:
    """Run trades that happened some seconds after `BEGIN_US` through the feed, in this order."""
    handler = new_handler(states=states)
    first = 1_000 if states is None else 2_000
    for i, second in enumerate(seconds):
        event_us = BEGIN_US + second * SECOND_US
        handler.handle([(match(first + i, event_us), BEGIN_US + 3_600 * SECOND_US)])
    return Published(handler.take())


def test_a_trade_is_late_after_its_minute_and_too_late_after_the_horizon() -> None:
    trades = published([0, 59, 60, 59, 659, 660, 59, 60, 720]).trades
    in_time, late, too_late = Lateness
    assert trades["late"].tolist() == [
        *(in_time, in_time, in_time, late),
        *(in_time, in_time, too_late, late, in_time),
    ]


@given(st.lists(st.integers(0, 2_400), min_size=1, max_size=60))
def test_the_feed_and_the_open_minutes_agree_on_what_is_too_late(seconds: list[int]) -> None:
    handed = published(seconds)
    payloads = handed.payloads(TRADES)
    minutes = OpenMinutes(10 * MINUTE_US)
    found = []
    for payload in payloads:
        columns = trade_columns(Batch(0, [START_US], [payload]), Partition(TRADES, 0))
        found.append(minutes.add(columns).too_late == 1)
    assert found == (handed.trades["late"] == Lateness.TOO_LATE).tolist()
    assert np.unique(handed.trades["trade_id"]).size == len(seconds)


def test_the_horizon_survives_a_restart() -> None:
    state = ProductState(
        exchange=Exchange.COINBASE,
        ids=[(1, 1_999)],
        newest_event_us=BEGIN_US + 700 * SECOND_US,
        last_event_us=BEGIN_US,
    )
    assert published([30, 100], {"BTC-USD": state}).trades["late"].tolist() == [
        Lateness.TOO_LATE,
        Lateness.LATE,
    ]
