"""The formulas against empyrical, which shares nothing with them."""

import math
from itertools import pairwise

import empyrical
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.metrics.returns import (
    DAYS_A_YEAR,
    log_returns,
    realised_volatility,
    sharpe,
    simple_returns,
    volatility,
)

PRICES = st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=120).map(np.array)
WINDOWS = st.integers(2, 90)


def same(found: float, expected: float) -> bool:
    return bool(math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-12))


@given(PRICES, st.integers(1, 90))
def test_returns_are_those_of_the_prices(prices: np.ndarray, periods: int) -> None:
    found = simple_returns(prices, periods)
    assert np.isnan(found[:periods]).all()
    for at in range(periods, len(prices)):
        assert same(
            found[at], empyrical.cum_returns_final(empyrical.simple_returns(prices[at - periods : at + 1]))
        )
    logs = log_returns(prices)
    assert np.isnan(logs[0])
    np.testing.assert_allclose(np.expm1(logs[1:]), empyrical.simple_returns(prices), rtol=1e-9, atol=1e-12)


@given(PRICES, WINDOWS)
def test_volatility_and_sharpe_are_those_of_empyrical_and_empty_with_less_than_a_window(
    prices: np.ndarray, window: int
) -> None:
    daily, logs = simple_returns(prices), log_returns(prices)
    volatilities, ratios = volatility(logs, window), sharpe(daily, window)
    assert len(volatilities) == len(ratios) == len(prices)
    assert np.isnan(volatilities[:window]).all()
    assert np.isnan(ratios[:window]).all()
    for at in range(window, len(prices)):
        last = slice(at - window + 1, at + 1)
        assert same(volatilities[at], empyrical.annual_volatility(logs[last], annualization=DAYS_A_YEAR))
        if np.unique(daily[last]).size > 1:
            expected = empyrical.sharpe_ratio(daily[last], annualization=DAYS_A_YEAR)
            assert math.isclose(ratios[at], expected, rel_tol=1e-6, abs_tol=1e-9)


@given(PRICES, WINDOWS, st.data())
def test_a_day_that_is_not_known_leaves_every_window_it_is_in_empty(
    prices: np.ndarray, window: int, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(prices) - 1))
    prices[at] = np.nan
    logs, daily = log_returns(prices), simple_returns(prices)
    touched = slice(at, at + window + 1)
    assert np.isnan(volatility(logs, window)[touched]).all()
    assert np.isnan(sharpe(daily, window)[touched]).all()
    assert np.isnan(simple_returns(prices, window)[at : at + window + 1 : window]).all()


def test_a_price_that_never_moves_has_no_risk_and_no_sharpe_ratio() -> None:
    prices = np.full(40, 17.3)
    assert volatility(log_returns(prices), 30)[-1] == 0
    assert np.isnan(sharpe(simple_returns(prices), 30)[-1])
    assert realised_volatility(prices) == 0


@given(PRICES)
def test_realised_volatility_is_the_root_mean_square_of_the_steps_of_a_year(prices: np.ndarray) -> None:
    steps = [math.log(after / before) for before, after in pairwise(prices)]
    expected = math.sqrt(365 * math.fsum(step * step for step in steps))
    assert math.isclose(realised_volatility(prices), expected, rel_tol=1e-9, abs_tol=1e-9)


def test_a_known_example() -> None:
    """A year of +1 % and -1 % by turns; figures of the formulas by hand."""
    daily = np.array([np.nan] + [0.01, -0.01] * 15)
    assert volatility(daily, 30)[-1] == pytest.approx(0.01 * math.sqrt(30 / 29) * math.sqrt(365))
    assert sharpe(daily + 0.001, 30)[-1] == pytest.approx(0.1 / math.sqrt(30 / 29) * math.sqrt(365))
