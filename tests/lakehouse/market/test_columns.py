"""Scaled integers to Arrow columns and back."""

from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.market.columns import (
    UnknownCodeError,
    check_codes,
    days,
    decimals,
    microseconds,
    scaled_integers,
    times,
    words,
)

PRICE = pa.decimal128(18, 8)
scaled = st.integers(-(10**18) + 1, 10**18 - 1)


@given(st.lists(scaled))
def test_decimals_are_the_integers_at_their_scale(values: list[int]) -> None:
    column = decimals(np.array(values, dtype=np.int64), PRICE)
    column.validate(full=True)
    assert column.to_pylist() == [Decimal(value).scaleb(-8) for value in values]


@given(st.lists(scaled), st.integers(0, 3), st.integers(0, 3))
def test_and_back_from_slices_and_chunks(values: list[int], skipped: int, cut: int) -> None:
    column = decimals(np.array(values, dtype=np.int64), PRICE)[skipped:]
    chunked = pa.chunked_array([column[:cut], column[cut:]], PRICE)
    assert scaled_integers(column).tolist() == scaled_integers(chunked).tolist() == values[skipped:]


def test_empty_places_stay_empty() -> None:
    empty = np.array([False, True, False] * 5)
    column = decimals(np.arange(15), PRICE, empty=empty)
    assert [value is None for value in column.to_pylist()] == empty.tolist()
    with pytest.raises(ValueError, match="empty"):
        scaled_integers(column)
    assert times(np.arange(3), empty=np.array([True, False, True])).null_count == 2


def test_only_decimals_that_fit_are_read_back() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        scaled_integers(pa.array([Decimal(1)], pa.decimal128(38, 8)))


def test_times_and_days() -> None:
    us = np.array([0, 86_399_999_999, 86_400_000_000, 1_700_000_000_123_456])
    column = times(us)
    assert column[3].as_py() == datetime(2023, 11, 14, 22, 13, 20, 123_456, tzinfo=UTC)
    assert microseconds(column).tolist() == us.tolist()
    assert days(us).to_pylist() == [
        date(1970, 1, 1), date(1970, 1, 1), date(1970, 1, 2), date(2023, 11, 14)
    ]  # fmt: skip


def test_words() -> None:
    assert words(np.array([1, 0, 1]), ["buy", "sell"]).to_pylist() == ["sell", "buy", "sell"]
    assert words(np.zeros(0, dtype=np.int64), []).to_pylist() == []


@pytest.mark.parametrize("codes", [[0, 0, 7], [0, 0, 1], [0, 0, 2**40], [0, 2, -1]])
def test_a_code_without_a_word_is_refused(codes: list[int]) -> None:
    with pytest.raises(UnknownCodeError, match=f"side {codes[2]} is not known") as raised:
        check_codes(np.array(codes), ["buy", None, "sell"], "side")
    assert raised.value.position == 2
