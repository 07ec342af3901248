"""The depth of a replayed book against the feed's own order book, asked with fractions."""

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_rows import DAY

from lakehouse.market.order_book import OrderBook
from lakehouse.market.time import DAY_US, MINUTE_US
from lakehouse.metrics.depth import COLUMNS, DEPTHS, depth_figures
from lakehouse.stores.schemas import BOOK, DEPTH_BANDS_BPS

SCHEMA = pa.schema([BOOK.schema.field(name) for name in COLUMNS])
MIDNIGHT = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)

Level = tuple[str, int, int]
Message = tuple[int, str, list[Level]]
"""Microseconds into the day, kind, and levels: side, price and size in cents."""


def rows_of(messages: list[Message]) -> list[dict[str, Any]]:
    return [
        {
            "event_time": MIDNIGHT + timedelta(microseconds=at),
            "spine_offset": 7 * number,
            "level": level,
            "kind": kind,
            "side": side,
            "price": Decimal(price) / 100,
            "size": Decimal(size) / 100,
        }
        for number, (at, kind, levels) in enumerate(messages)
        for level, (side, price, size) in enumerate(levels)
    ]


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def slowly(messages: list[Message]) -> dict[str, float | None]:
    """Apply one message after the other, and look at every level at the end of each minute."""
    book, is_known, found, minute = OrderBook(), False, [], 0

    def look() -> None:
        bids, asks = book.bids(), book.asks()
        if not is_known or not bids or not asks or book.is_crossed:
            return
        mid = Fraction(bids[0][0] + asks[0][0], 2)
        found.append(
            [
                sum(Fraction(p * s, 10**16) for p, s in side if abs(p - mid) <= mid * band / 10_000)
                for side in (bids, asks)
                for band in DEPTH_BANDS_BPS
            ]
        )

    for at, kind, levels in messages:
        if not levels:
            continue  # it has no row
        if at // MINUTE_US > minute:
            look()
            minute = at // MINUTE_US
        sides = [[(p * 10**6, s * 10**6) for side, p, s in levels if side == of] for of in ("bid", "ask")]
        if kind == "snapshot":
            is_known = True
            book.replace(*sides)
        else:
            book.apply(*sides)
    look()
    means: list[float | None] = [float(sum(of) / len(found)) for of in zip(*found, strict=True)]
    return {"book_minutes": len(found)} | dict(zip(DEPTHS, means or [None] * len(DEPTHS), strict=True))


BIDS = st.tuples(st.just("bid"), st.integers(9_880, 10_001), st.integers(0, 3) | st.just(10**9))
ASKS = st.tuples(st.just("ask"), st.integers(10_000, 10_120), st.integers(0, 3))
MESSAGES = st.lists(
    st.tuples(
        st.integers(0, 6 * MINUTE_US) | st.integers(0, DAY_US - 1),
        st.sampled_from(["snapshot", "update", "update", "update"]),
        st.lists(BIDS | ASKS, max_size=6),
    ),
    max_size=25,
)


@given(MESSAGES, st.lists(st.integers(0, 100), max_size=4))
def test_it_is_what_rests_near_the_mid_price_at_the_end_of_minutes(
    messages: list[Message], cuts: list[int]
) -> None:
    rows = rows_of(messages)
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    pieces = [table(rows[start:end]) for start, end in itertools.pairwise(bounds)]
    assert depth_figures(DAY, pieces) == pytest.approx(slowly(messages))


def test_what_comes_before_the_first_snapshot_is_of_a_book_that_nobody_knows() -> None:
    best: list[Level] = [("bid", 9_999, 100), ("ask", 10_001, 200)]
    updates: list[Message] = [(0, "update", best), (MINUTE_US, "update", best)]
    assert depth_figures(DAY, [table(rows_of(updates))]) == {"book_minutes": 0} | dict.fromkeys(DEPTHS)
    known = depth_figures(DAY, [table(rows_of([*updates, (MINUTE_US, "snapshot", best)]))])
    assert known["book_minutes"] == 1
    assert known["bid_depth_10bps"] == known["bid_depth_100bps"] == pytest.approx(99.99)
    assert known["ask_depth_10bps"] == known["ask_depth_100bps"] == pytest.approx(200.02)


def test_minutes_in_which_nothing_came_do_not_count() -> None:
    first: Message = (0, "snapshot", [("bid", 9_999, 100), ("ask", 10_001, 100)])
    later: Message = (600 * MINUTE_US, "update", [("bid", 9_999, 300)])
    found = depth_figures(DAY, [table(rows_of([first, later]))])
    assert found["book_minutes"] == 2
    assert found["bid_depth_10bps"] == pytest.approx(2 * 99.99)
