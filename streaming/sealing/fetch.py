"""Asking an exchange for the trades of ranges of ids, and for the edges of a day."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt

from lakehouse.market.quarantine import RefusedError
from lakehouse.market.time import day_start_us
from lakehouse.market.trade_ids import TradeIds
from streaming.exchanges.contract import Rest, RestError
from streaming.sealing.plan import Range, requests
from streaming.sealing.rows import FETCHED, as_array

PAGE: Final = 1000
"""Trades of a page, on every exchange."""

Progress = Callable[[int, int], None]
"""Told how many of how many missing trades have been asked for, after each page."""

KEPT_PAGES: Final = 20
"""Pages that a process which is killed may have to ask for again: two seconds of Coinbase's limit."""

Keep = Callable[[npt.NDArray[np.void]], None]
"""Given fetched trades (`FETCHED`) to make durable."""


@dataclass
class Answer:
    """What the exchange had."""

    pages: list[npt.NDArray[np.void]] = field(default_factory=list)
    refused: list[tuple[bytes, RefusedError]] = field(default_factory=list)
    """Records that can't be read, with the reason."""

    @property
    def trades(self) -> npt.NDArray[np.void]:
        """All trades as `FETCHED` records: ascending by trade_id, each id once."""
        if not self.pages:
            return np.zeros(0, dtype=FETCHED)
        trades = np.concatenate(self.pages)
        _, first = np.unique(trades["trade_id"], return_index=True)
        return trades[first]


async def first_id_from(rest: Rest, product: str, day: date) -> int:
    """Return the id that the first trade from a UTC day on has, or will have.

    It is 1 where the exchange has no trade before the day.

    Raises:
        RestError: the exchange can't be asked.
    """
    return (await rest.trade_id_before(product, day_start_us(day)) or 0) + 1


async def fetch(
    rest: Rest, product: str, missing: Sequence[Range], progress: Progress, keep: Keep = lambda trades: None
) -> Answer:
    """Return what the exchange has of ranges of ids.

    Trades between near ranges, which came along, are taken out.

    Args:
        rest: the exchange.
        product: whose trades.
        missing: the ids to ask for.
        progress: told after each page.
        keep: given the trades of every `KEPT_PAGES` pages, and those of the last ones when asking fails.

    Raises:
        RestError: the exchange can't be asked.
    """
    wanted = TradeIds(missing)
    answer = Answer()
    total = len(wanted)
    kept = 0
    try:
        for first, last in requests(missing, PAGE):
            async for page in rest.trades(product, first_id=first, before_id=last + 1):
                answer.refused.extend(page.refused)
                trades = as_array(page.trades)
                answer.pages.append(trades[wanted.contains(trades["trade_id"])])
                if len(answer.pages) - kept == KEPT_PAGES:
                    keep(np.concatenate(answer.pages[kept:]))
                    kept = len(answer.pages)
                # Newest first: everything from the page's end to the range's end has been asked for.
                asked_from = max(first, page.older or first)
                progress(_asked(missing, first, asked_from, last), total)
    except RestError:
        if answer.pages[kept:]:
            keep(np.concatenate(answer.pages[kept:]))
        raise
    return answer


def _asked(missing: Sequence[Range], first: int, asked_from: int, last: int) -> int:
    """Return how many missing ids lie below `first`, or between `asked_from` and `last`."""
    asked = 0
    for low, high in missing:
        asked += max(min(high, first - 1) - low + 1, 0)
        asked += max(min(high, last) - max(low, asked_from) + 1, 0)
    return asked
