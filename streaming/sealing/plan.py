"""Which trade ids of a product-day are missing, and which requests bring them. Pure."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lakehouse.market.trade_ids import TradeIds

Range = tuple[int, int]
"""Ids from the first to the last, both included."""


class DayEdges(NamedTuple):
    """The first and last id that an exchange made on a day; `last_id < first_id` for a day without trades."""

    first_id: int
    last_id: int

    @property
    def trades(self) -> int:
        """How many trades the exchange made."""
        return max(self.last_id - self.first_id + 1, 0)


def missing_ranges(known: TradeIds, edges: DayEdges) -> list[Range]:
    """Return the ids within the day's edges that are not known, ascending.

    >>> missing_ranges(TradeIds([(3, 5), (9, 20)]), DayEdges(1, 10))
    [(1, 2), (6, 8)]
    """
    return known.missing_between(*edges) if edges.trades else []


def requests(missing: Sequence[Range], page: int) -> list[Range]:
    """Return ranges to ask for that cover `missing`: those less than a page apart become one.

    A request brings up to `page` trades whether they are wanted or not, so asking for two near ranges apart
    costs more than the known trades between them.

    >>> requests([(1, 2), (6, 8), (5000, 5001)], page=1000)
    [(1, 8), (5000, 5001)]
    """
    joined: list[Range] = []
    for first, last in missing:
        if joined and last - joined[-1][0] < page:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined


def ids_of(ranges: Iterable[Range]) -> TradeIds:
    """Return ranges as a set."""
    return TradeIds(ranges)


def without(ids: TradeIds, removed: TradeIds) -> TradeIds:
    """Return the ids that are not in `removed`."""
    return TradeIds(part for first, last in ids for part in removed.missing_between(first, last))


def common(ids: TradeIds, others: TradeIds) -> TradeIds:
    """Return the ids that are in both sets."""
    return without(ids, without(ids, others))
