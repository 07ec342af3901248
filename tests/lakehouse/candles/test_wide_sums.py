"""Sums in 128 bits against Python's own integers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.candles.wide import (
    LARGEST,
    WIDE,
    SumTooLargeError,
    added,
    sums,
    sums_of_products,
    sums_of_wide,
    to_int,
)

scaled = st.one_of(
    st.integers(0, 10**18), st.integers(0, 100), st.sampled_from([2**32 - 1, 2**32, 2**32 + 1])
)


def wide(values: list[int]) -> np.ndarray:
    made = np.zeros(len(values), dtype=WIDE)
    for i, value in enumerate(values):
        made[i] = (value & (2**64 - 1), value >> 64)
    return made


def groups(sizes: list[int]) -> tuple[np.ndarray, list[slice]]:
    ends = np.cumsum(sizes)
    return ends - sizes, [slice(int(end - size), int(end)) for size, end in zip(sizes, ends, strict=True)]


@given(st.data(), st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_sums_are_exact(data: st.DataObject, sizes: list[int]) -> None:
    count = sum(sizes)
    values = data.draw(st.lists(scaled, min_size=count, max_size=count))
    starts, slices = groups(sizes)
    found = sums(np.array(values, dtype=np.int64), starts)
    assert [to_int(one) for one in found] == [sum(values[part]) for part in slices]


@given(st.data(), st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_sums_of_products_are_exact(data: st.DataObject, sizes: list[int]) -> None:
    count = sum(sizes)
    left = data.draw(st.lists(scaled, min_size=count, max_size=count))
    right = [data.draw(st.integers(0, min(10**28 // max(value, 1), 10**18))) for value in left]
    starts, slices = groups(sizes)
    found = sums_of_products(np.array(left, dtype=np.int64), np.array(right, dtype=np.int64), starts)
    products = [a * b for a, b in zip(left, right, strict=True)]
    assert [to_int(one) for one in found] == [sum(products[part]) for part in slices]


@given(st.lists(st.integers(0, 10**37), min_size=1, max_size=8))
def test_sums_of_wide_numbers_are_exact(values: list[int]) -> None:
    assert to_int(sums_of_wide(wide(values), np.array([0]))[0]) == sum(values)
    assert [to_int(one) for one in added(wide(values), wide(values))] == [2 * value for value in values]


def test_a_sum_that_no_decimal_holds_is_refused() -> None:
    assert to_int(sums_of_wide(wide([LARGEST - 1, 1]), np.array([0]))[0]) == LARGEST
    for values in ([LARGEST, 1], [LARGEST] * 5, [2**127 - 1] * 2, [2**127 - 1] * 40):
        with pytest.raises(SumTooLargeError):
            sums_of_wide(wide(values), np.array([0]))


def test_a_product_beyond_every_market_is_refused() -> None:
    with pytest.raises(SumTooLargeError, match="999999999999999999"):
        sums_of_products(np.array([10**18 - 1]), np.array([10**11]), np.array([0]))


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(SumTooLargeError, match="-1 is negative"):
        sums(np.array([1, -1]), np.array([0]))


def test_nothing_has_no_sums() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert len(sums(nothing, np.zeros(0, dtype=np.intp))) == 0
    assert len(sums_of_products(nothing, nothing, np.zeros(0, dtype=np.intp))) == 0
