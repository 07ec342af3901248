"""Returns, volatility and Sharpe ratio of a series of prices, for a market that is open every day.

All arrays are float64; NaN stands for what is not known, and whatever is made of it is NaN.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

DAYS_A_YEAR: Final = 365
"""A crypto market has no weekends and no holidays."""

Floats = npt.NDArray[np.float64]


def simple_returns(prices: Floats, periods: int = 1) -> Floats:
    """Return p[t] / p[t - periods] - 1, NaN where there is no earlier price; same shape as `prices`."""
    returns = np.full(len(prices), np.nan)
    returns[periods:] = prices[periods:] / prices[: max(len(prices) - periods, 0)] - 1
    return returns


def log_returns(prices: Floats) -> Floats:
    """Return ln(p[t] / p[t - 1]), NaN where there is no earlier price; same shape as `prices`."""
    returns = np.full(len(prices), np.nan)
    returns[1:] = np.log(prices[1:] / prices[:-1])
    return returns


def volatility(returns: Floats, window: int) -> Floats:
    """Return the annualised standard deviation of the last `window` daily log returns, of each day.

    s · √365 with s² = Σ(u - ū)² / (n - 1): J. C. Hull, Options, Futures, and Other Derivatives, "Estimating
    volatility from historical data". NaN where a return of the window is not known.

    Args:
        returns: daily log returns.
        window: number of days, at least 2.
    """
    deviation: Floats = _rolling(returns, window).std(axis=1, ddof=1)
    return deviation * math.sqrt(DAYS_A_YEAR)


def sharpe(returns: Floats, window: int) -> Floats:
    """Return the annualised Sharpe ratio of the last `window` daily simple returns, of each day.

    d̄ / s_d · √365 against a riskless return of 0: W. F. Sharpe, The Sharpe Ratio (1994), equations 4 to 6,
    with the annualisation of independent returns in A. W. Lo, The Statistics of Sharpe Ratios (2002),
    equation 20. NaN where a return of the window is not known, or all of them are the same.

    Args:
        returns: daily simple returns.
        window: number of days, at least 2.
    """
    windows = _rolling(returns, window)
    same = windows.max(axis=1) == windows.min(axis=1)
    deviation = np.where(same, np.nan, windows.std(axis=1, ddof=1))
    ratio: Floats = windows.mean(axis=1) / deviation
    return ratio * math.sqrt(DAYS_A_YEAR)


def realised_volatility(prices: Floats) -> float:
    """Return a day's annualised realised volatility from its prices at regular moments.

    √(Σ r² · 365) over the log returns between them: T. G. Andersen, T. Bollerslev, F. X. Diebold and P.
    Labys, Modeling and Forecasting Realized Volatility (2003). Five minutes between the moments are what L.
    Y. Liu, A. J. Patton and K. Sheppard, Does Anything Beat 5-Minute RV? (2015), found hard to beat: shorter
    ones measure the bounce between bid and ask.

    Args:
        prices: the first at the beginning of the day, the last at its end.
    """
    steps = np.diff(np.log(prices))
    return float(np.sqrt(DAYS_A_YEAR * (steps @ steps)))


def _rolling(values: Floats, window: int) -> Floats:
    """Return the last `window` values up to each one, shape (n, window); NaN before the first."""
    padded = np.concatenate([np.full(window - 1, np.nan), values])
    return np.lib.stride_tricks.sliding_window_view(padded, window)
