"""Which trades are accepted, which are late, which are missing: whatever order they come in."""

import random

import msgspec
import pytest
from feed_frames import START_US, coinbase, heartbeat, match, new_handler, take
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from lakehouse.market.exact import scaled
from lakehouse.market.gap import FoundBy, Gap, GapStatus
from lakehouse.market.quarantine import Reason
from lakehouse.market.time import DAY_US, MINUTE_US, SECOND_US, minute_start_us
from lakehouse.market.trade import Source
from streaming.exchanges.contract import TradePage
from streaming.feed.handler import FeedError, ProductState
from streaming.feed.metrics import HandlerMetrics
from streaming.feed.trade_gaps import GRACE_US, LONGEST_FILL, FillGap

MINUTE = minute_start_us(START_US) + MINUTE_US


def open_ids(gaps: list[Gap]) -> set[int]:
    """The ids whose latest row says that they are missing."""
    last: dict[int, GapStatus] = {}
    for gap in gaps:
        for trade_id in range(gap.first_trade_id, gap.last_trade_id + 1):
            last[trade_id] = gap.status
    return {trade_id for trade_id, status in last.items() if status is not GapStatus.FILLED}


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 7), st.booleans())
def test_any_order_gives_the_same_trades_and_the_gaps_between_them(
    trade_ids: list[int], batch: int, slow: bool
) -> None:
    handler = new_handler(source=Source.RECORDING)
    frames = [
        (match(trade_id, START_US + trade_id * 1000), START_US + place * (700_000 if slow else 10))
        for place, trade_id in enumerate(trade_ids)
    ]
    for start in range(0, len(frames), batch):
        handler.handle(frames[start : start + batch])
    handler.finish(frames[-1][1])
    published = take(handler)
    assert sorted(published.trades["trade_id"].tolist()) == sorted(set(trade_ids))
    totals = handler.totals()
    assert (totals.received, totals.accepted) == (len(trade_ids), len(set(trade_ids)))
    assert totals.duplicates == len(trade_ids) - len(set(trade_ids))
    assert totals.unaccounted == 0
    missing = set(range(min(trade_ids), max(trade_ids) + 1)) - set(trade_ids)
    assert open_ids(published.gaps) == missing


@given(st.lists(st.integers(0, 5 * 60), min_size=1, max_size=40))
def test_late_means_that_a_later_minute_had_begun(seconds: list[int]) -> None:
    handler = new_handler()
    frames = [
        (match(place + 1, MINUTE + second * SECOND_US), MINUTE + DAY_US // 2)
        for place, second in enumerate(seconds)
    ]
    handler.handle(frames)
    published = take(handler)
    expected = [
        any(earlier // 60 > second // 60 for earlier in seconds[:place])
        for place, second in enumerate(seconds)
    ]
    assert published.trades["late"].astype(bool).tolist() == expected
    assert sum(count.late for count in published.counts) == sum(expected)


def test_a_record_says_everything_about_its_trade() -> None:
    handler = new_handler()
    handler.handle([(match(7, START_US + 5, price="123.45678901", size="2"), START_US + 9)])
    record = take(handler).trades[0]
    assert record["product"] == b"BTC-USD"
    assert (record["trade_id"], record["price"], record["size"]) == (7, 12345678901, 2 * 10**8)
    assert (record["event_us"], record["received_us"]) == (START_US + 5, START_US + 9)
    assert (record["taker_side"], record["source"], record["exchange"]) == (0, Source.FEED, 2)


def test_a_duplicate_says_nothing_about_time() -> None:
    handler = new_handler()
    handler.handle(
        [
            (match(1, MINUTE), MINUTE),
            (match(1, MINUTE + 10 * MINUTE_US), MINUTE),
            (match(2, MINUTE + 1), MINUTE),
        ]
    )
    assert take(handler).trades["late"].tolist() == [0, 0]


def test_a_reordered_trade_is_no_gap() -> None:
    handler = new_handler()
    handler.handle([(match(i), START_US + place) for place, i in enumerate([1, 4, 3, 2, 5])])
    handler.tick(START_US + 10 * GRACE_US)
    assert take(handler).gaps == []
    assert handler.requests() == []


def test_a_gap_is_found_after_the_grace_then_filled_over_rest() -> None:
    handler = new_handler()
    handler.handle([(match(1, START_US), START_US), (match(5, START_US + 9), START_US + 10)])
    handler.tick(START_US + 9 + GRACE_US)
    assert take(handler).gaps == []
    handler.tick(START_US + 10 + GRACE_US)
    (found,) = take(handler).gaps
    assert (found.first_trade_id, found.last_trade_id, found.status) == (2, 4, GapStatus.FOUND)
    assert (found.found_by, found.after_us, found.before_us) == (FoundBy.TRADE_ID, START_US, START_US + 9)
    request = FillGap("BTC-USD", 2, 4)
    assert handler.requests() == [request]

    trades = [coinbase.decode(match(i)) for i in (4, 2)]
    handler.fill(TradePage(trades, [], None), START_US + 2 * GRACE_US)  # type: ignore[arg-type]
    handler.filled(request, START_US + 2 * GRACE_US)
    published = take(handler)
    assert published.trades["source"].tolist() == [Source.REST, Source.REST]
    rows = [(gap.first_trade_id, gap.last_trade_id, gap.status) for gap in published.gaps]
    assert rows == [(2, 2, GapStatus.FILLED), (4, 4, GapStatus.FILLED), (3, 3, GapStatus.UNFILLABLE)]
    assert handler.open_gaps == 1

    handler.handle([(match(3), START_US + 5 * GRACE_US)])  # it comes after all
    handler.tick(START_US + 9 * GRACE_US)
    assert [(gap.first_trade_id, gap.status) for gap in take(handler).gaps] == [(3, GapStatus.FILLED)]
    assert (handler.open_gaps, handler.totals().gaps) == (0, 1)


def test_a_heartbeat_ahead_is_a_gap_that_the_socket_may_still_fill() -> None:
    handler = new_handler()
    handler.handle([(match(1), START_US), (heartbeat(3), START_US + 1)])
    handler.tick(START_US + 1 + GRACE_US)
    (found,) = take(handler).gaps
    assert (found.first_trade_id, found.last_trade_id, found.found_by) == (2, 3, FoundBy.HEARTBEAT)
    handler.handle([(match(i), START_US + 2 * GRACE_US) for i in (2, 3, 4)])
    handler.tick(START_US + 4 * GRACE_US)
    assert [(gap.first_trade_id, gap.last_trade_id) for gap in take(handler).gaps] == [(2, 3)]
    assert handler.open_gaps == 0


def test_a_heartbeat_before_the_first_trade_tells_where_we_came_in() -> None:
    handler = new_handler(source=Source.RECORDING)
    handler.handle([(heartbeat(10), START_US), (match(12), START_US + 1)])
    handler.finish(START_US + 1)
    assert {gap.first_trade_id for gap in take(handler).gaps} == {11}


def test_a_gap_too_long_to_fetch_stays_visible_and_is_not_asked_for() -> None:
    handler = new_handler()
    handler.handle([(match(1), START_US), (match(LONGEST_FILL + 3), START_US)])
    handler.tick(START_US + GRACE_US)
    (found,) = take(handler).gaps
    assert found.status is GapStatus.FOUND
    assert "sealing" in found.detail
    assert handler.requests() == []


def test_the_next_run_goes_on_with_what_is_known_and_what_is_missing() -> None:
    handler = new_handler(products=["BTC-USD"])
    handler.handle([(match(i, MINUTE + i), MINUTE) for i in (1, 2, 5, 7)])
    handler.tick(MINUTE + GRACE_US)
    handler.handle([(match(9, MINUTE + MINUTE_US), MINUTE + GRACE_US)])
    states = msgspec.msgpack.decode(msgspec.msgpack.encode(handler.states()), type=dict[str, ProductState])
    following = new_handler(products=["BTC-USD"], states=states)
    assert following.requests() == [FillGap("BTC-USD", 3, 4), FillGap("BTC-USD", 6, 6)]
    following.handle([(match(i, MINUTE + i), MINUTE + 2 * GRACE_US) for i in (5, 6, 10)])
    published = take(following)
    assert published.trades["trade_id"].tolist() == [6, 10]
    assert published.trades["late"].tolist() == [1, 1]
    assert [(gap.first_trade_id, gap.status) for gap in published.gaps] == [(8, GapStatus.FOUND)]
    following.tick(MINUTE + 9 * GRACE_US)
    assert [(gap.first_trade_id, gap.status) for gap in take(following).gaps] == [(6, GapStatus.FILLED)]


def test_the_counts_reach_prometheus() -> None:
    handler = new_handler(products=["BTC-USD"])
    handler.handle([(frame, START_US) for frame in (match(1), match(1), "junk", heartbeat(1))])
    before = {name: sample(name) for name in COUNTERS}
    carrier = HandlerMetrics(coinbase.code)
    for _ in range(2):
        handler.count()
        carrier.update(handler, START_US + 5 * SECOND_US)
    assert {name: sample(name) - before[name] for name in COUNTERS} == COUNTERS
    assert sample("lakehouse_feed_unaccounted") == 0
    assert sample("lakehouse_feed_freshness_seconds", product="BTC-USD") == 5


COUNTERS = {
    "lakehouse_feed_received_total": 4,
    "lakehouse_feed_accepted_total": 2,
    "lakehouse_feed_duplicates_total": 1,
    "lakehouse_feed_quarantined_total": 1,
}


def sample(name: str, **labels: str) -> float:
    """A metric's sum over its labels, or the value for some of them."""
    return sum(
        found.value
        for metric in REGISTRY.collect()
        for found in metric.samples
        if found.name == name and labels.items() <= found.labels.items()
    )


@pytest.mark.parametrize(
    ("fields", "event_us", "reason"),
    [
        ({}, 1, Reason.BAD_TIME),
        ({"time": "1970-01-01T00:00:00.000000Z"}, 0, Reason.BAD_TIME),
        ({"time": "2200-01-01T00:00:00.000000Z"}, 0, Reason.BAD_TIME),
        ({}, START_US + DAY_US + 1, Reason.BAD_TIME),
        ({"price": "9999999999", "size": "100.0000001"}, START_US, Reason.BAD_NUMBER),
        ({"product_id": "ETH-USD"}, START_US, Reason.UNKNOWN_PRODUCT),
    ],
)
def test_implausible_trades_are_quarantined_whole(
    fields: dict[str, object], event_us: int, reason: Reason
) -> None:
    handler = new_handler(products=["BTC-USD"])
    frame = match(1, event_us, **fields)
    handler.handle([(frame, START_US)])
    published = take(handler)
    (refused,) = published.refused
    assert (refused.reason, refused.frame.decode()) == (reason, frame)
    assert len(published.trades) == 0
    (count,) = published.counts
    assert (count.received, count.quarantined, count.kind) == (1, 1, "trade")


def test_the_largest_amount_below_the_limit_is_accepted() -> None:
    assert scaled("9999999999") * scaled("99.99999999") < 10**28
    handler = new_handler()
    handler.handle([(match(1, price="9999999999", size="99.99999999"), START_US)])
    assert handler.totals().accepted == 1


def test_a_product_belongs_to_one_exchange() -> None:
    state = ProductState(exchange=new_handler()._exchange.code.BINANCE)
    with pytest.raises(FeedError, match=r"holds trades of binance .* LAKEHOUSE_HOME"):
        new_handler(products=["BTC-USD"], states={"BTC-USD": state})


def test_mutated_frames_never_stop_the_feed_and_the_sum_is_exact() -> None:
    source = random.Random(20261121)
    whole = [match(i) for i in range(1, 30)] + [heartbeat(30)]
    handler = new_handler(products=["BTC-USD"])
    received = 0
    for _ in range(20_000):
        raw = bytearray(source.choice(whole).encode())
        for _ in range(source.randrange(1, 6)):
            place = source.randrange(len(raw))
            what = source.randrange(4)
            if what == 0:
                raw[place] = source.randrange(256)
            elif what == 1:
                del raw[place : place + source.randrange(1, 9)]
            elif what == 2:
                raw[place:place] = source.choice([b'"', b"{", b"}", b"9" * 30, b"\\u", b"\xff", b"e5", b"-"])
            else:
                raw[place:place] = raw[: source.randrange(len(raw) + 1)]
            if not raw:
                raw = bytearray(b"[")
        try:
            frame: str | bytes = raw.decode()
        except UnicodeDecodeError:
            frame = bytes(raw)
        handler.handle([(frame, START_US)])
        received += 1
    published = take(handler)
    totals = handler.totals()
    assert totals.received == received
    assert totals.received == totals.accepted + totals.duplicates + totals.quarantined
    assert totals.quarantined == len(published.refused) > received // 2
    assert sum(count.received for count in published.counts) == received
    assert sum(count.accepted for count in published.counts) == totals.accepted
