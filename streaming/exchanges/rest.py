"""What the exchanges' REST clients have in common: staying within a rate limit, and asking again.

Limits count requests (Coinbase) or weights (Binance); both are a bucket that fills at a steady rate.
"""

import asyncio
import random
from collections.abc import Mapping
from typing import Final

import httpx
import structlog

from streaming.exchanges.contract import RestError

ATTEMPTS: Final = 12
LONGEST_WAIT: Final = 5.0
"""Seconds between two attempts, unless the exchange asks for more."""

_LONGEST_AFTER_429: Final = 1.5
"""The same after a 429: a limit's bucket fills in less."""

_LONGEST_ASKED: Final = 60.0
_FIRST_WAIT: Final = 0.25

log = structlog.get_logger()


class RateLimit:
    """A bucket of `burst` permissions that fills at `per_second`; those who wait are served in order."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._counted_at = 0.0
        self._turn = asyncio.Lock()

    async def acquire(self, weight: float = 1.0) -> None:
        """Wait until `weight` permissions are there, and take them."""
        async with self._turn:
            now = asyncio.get_running_loop().time()
            self._left = min(self._burst, self._left + (now - self._counted_at) * self._per_second)
            self._counted_at = now
            self._left -= weight
            if self._left < 0:
                await asyncio.sleep(-self._left / self._per_second)


class RestClient:
    """GET requests to one address, within a rate limit, retried while there is hope.

    429 and 5xx answers and failed connections are asked again with exponential backoff and jitter, or
    after the time the exchange says (`Retry-After`). Any other answer than 200 is final.
    """

    def __init__(self, url: str, limit: RateLimit) -> None:
        self._url = url
        self._limit = limit
        self._client = httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(30.0, connect=10.0))

    async def get(
        self, path: str, parameters: Mapping[str, str | int], *, weight: float = 1.0
    ) -> httpx.Response:
        """Return the answer.

        Raises:
            RestError: the exchange says no, or can't be reached in `ATTEMPTS` attempts.
        """
        asked = f"{self._url}{path}"
        problem = ""
        for attempt in range(ATTEMPTS):
            await self._limit.acquire(weight)
            wait = random.uniform(0.5, 1.0) * min(LONGEST_WAIT, _FIRST_WAIT * 2**attempt)
            try:
                response = await self._client.get(path, params=dict(parameters))
            except httpx.TransportError as error:
                problem = f"no answer ({type(error).__name__} {error})".replace(" )", ")")
            else:
                if response.status_code == 200:
                    return response
                problem = f"HTTP {response.status_code} {response.text[:200]!r}"
                if response.status_code not in (418, 429) and response.status_code < 500:
                    raise RestError(f"{asked} answered {problem}")
                if response.status_code == 429:
                    wait = min(wait, _LONGEST_AFTER_429)
                wait = max(wait, _retry_after(response))
            if attempt + 1 < ATTEMPTS:
                log.info("asking again", url=asked, problem=problem, seconds=round(wait, 2))
                await asyncio.sleep(wait)
        raise RestError(f"{asked} failed {ATTEMPTS} times, last: {problem}")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _retry_after(response: httpx.Response) -> float:
    """Return how long the exchange asks us to wait; 0 where it doesn't say it in seconds."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), _LONGEST_ASKED) if text.isascii() and text.isdigit() else 0.0
