"""Time-weighted means against a computation that looks at each quote with fractions."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_rows import DAY

from lakehouse.market.time import DAY_US, SECOND_US, day_start_us
from lakehouse.metrics.liquidity import COLUMNS, liquidity_rows
from lakehouse.stores.schemas import LIQUIDITY, QUOTES

START = day_start_us(DAY)
HOLD_US = 60 * SECOND_US


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Quote = dict[str, Any]


def quote(at_us: int, offset: int, bid: int = 100, ask: int = 101, imbalance: str | None = None) -> Quote:
    return {
        "event_time": EPOCH + timedelta(microseconds=START + at_us),
        "spine_offset": offset,
        "bid": Decimal(bid),
        "bid_size": Decimal(offset % 7),
        "ask": Decimal(ask),
        "ask_size": Decimal("0.5"),
        "imbalance": None if imbalance is None else Decimal(imbalance),
        "exchange": "simulated",
        "recorded_at": EPOCH + timedelta(microseconds=START + at_us + 5),
    }


def table(quotes: list[Quote]) -> pa.Table:
    return pa.Table.from_pylist(quotes, schema=pa.schema([QUOTES.schema.field(name) for name in COLUMNS]))


def slowly(quotes: list[Quote], value: Any) -> tuple[Fraction, Fraction | None]:
    """Covered microseconds of the day, and the mean of a value over them."""
    ordered = sorted(quotes, key=lambda q: (q["event_time"], q["spine_offset"]))
    at = [(one["event_time"] - EPOCH) // timedelta(microseconds=1) for one in ordered]
    covered, weighted = Fraction(0), Fraction(0)
    for number, one in enumerate(ordered):
        following = at[number + 1] if number + 1 < len(at) else START + DAY_US
        end = min(following, at[number] + HOLD_US, START + DAY_US)
        held = max(end - max(at[number], START), 0)
        covered += held
        weighted += held * Fraction(value(one))
    return covered, weighted / covered if covered else None


MOMENTS = st.integers(0, DAY_US - 1) | st.integers(0, 200 * SECOND_US)
QUOTES_OF_A_DAY = st.lists(
    st.tuples(MOMENTS, st.integers(1, 1_000), st.integers(0, 50), st.none() | st.integers(-100, 100)),
    min_size=1,
    max_size=30,
)


@given(QUOTES_OF_A_DAY, st.none() | st.integers(-120 * SECOND_US, -1), st.data())
def test_means_are_over_the_time_that_each_quote_held(
    made: list[tuple[int, int, int, int | None]], before: int | None, data: st.DataObject
) -> None:
    eve = [] if before is None else [quote(before, 0, 90, 95, "0.25"), quote(before - 1, 9_999, 1, 2)]
    day = [
        quote(at, number + 1, bid, bid + wide, None if skew is None else str(Decimal(skew) / 100))
        for number, (at, bid, wide, skew) in enumerate(made)
    ]
    shuffled = data.draw(st.permutations(day))
    (row,) = liquidity_rows("BTC-USD", DAY, table(shuffled), table(eve), {}).to_pylist()
    everything = eve[:1] + day

    def close(found: float | None, expected: Fraction | None) -> bool:
        if found is None or expected is None:
            return found is expected
        return bool(found == pytest.approx(float(expected), rel=1e-9, abs=1e-9))

    covered, spread = slowly(everything, lambda q: 20_000 * (q["ask"] - q["bid"]) / (q["ask"] + q["bid"]))
    assert row["quotes"] == len(day)
    assert close(row["covered"], covered / DAY_US)
    assert close(row["spread_bps"], spread)
    assert close(row["bid_depth"], slowly(everything, lambda q: q["bid"] * q["bid_size"])[1])
    assert close(row["ask_depth"], slowly(everything, lambda q: q["ask"] * q["ask_size"])[1])
    with_imbalance = [q for q in everything if q["imbalance"] is not None]
    assert close(row["imbalance"], slowly(with_imbalance, lambda q: q["imbalance"])[1])
    assert row["recorded_at"] == max(q["recorded_at"] for q in day)


def test_an_outage_is_not_covered_by_the_quote_before_it() -> None:
    quotes = [quote(0, 1, 100, 100), quote(3_600 * SECOND_US, 2, 100, 300)]
    (row,) = liquidity_rows("BTC-USD", DAY, table(quotes), table([]), {}).to_pylist()
    assert row["covered"] == pytest.approx(120 / 86_400)
    assert row["spread_bps"] == pytest.approx(5_000)  # 0 for a minute, 10,000 for a minute
    assert row["imbalance"] is None


def test_a_day_without_quotes_has_no_row() -> None:
    assert liquidity_rows("BTC-USD", DAY, table([]), table([quote(-1, 1)]), {}).equals(
        LIQUIDITY.schema.empty_table()
    )
