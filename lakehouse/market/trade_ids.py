"""Sets of trade ids, kept as intervals: exchanges number trades without holes, so a day is one interval."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt


class TradeIds:
    """A set of integers that costs memory by its holes, not by its members.

    >>> ids = TradeIds([(1, 5), (9, 9)])
    >>> 5 in ids, 6 in ids
    (True, False)
    >>> ids.missing_between(1, 9)
    [(6, 8)]
    """

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, intervals: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in intervals:
            self.add_range(first, last)

    def __contains__(self, trade_id: int) -> bool:
        i = bisect_right(self._firsts, trade_id) - 1
        return i >= 0 and trade_id <= self._lasts[i]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the intervals, ascending, both ends included."""
        return iter(zip(self._firsts, self._lasts, strict=True))

    def __len__(self) -> int:
        """Return the number of ids, not of intervals."""
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TradeIds) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # a mutable set

    def __repr__(self) -> str:
        return f"TradeIds({list(self)!r})"

    @property
    def highest(self) -> int | None:
        """The highest id, None for an empty set."""
        return self._lasts[-1] if self._lasts else None

    @property
    def lowest(self) -> int | None:
        """The lowest id, None for an empty set."""
        return self._firsts[0] if self._firsts else None

    def add(self, trade_id: int) -> bool:
        """Add one id and tell whether it is new."""
        lasts = self._lasts
        if lasts and trade_id == lasts[-1] + 1:  # the next trade, nearly always
            lasts[-1] = trade_id
            return True
        if trade_id in self:
            return False
        self.add_range(trade_id, trade_id)
        return True

    def add_range(self, first: int, last: int) -> None:
        """Add the ids `first` to `last`, both included; known ones among them do no harm."""
        if last < first:
            raise ValueError(f"an interval ends at {last}, before its start {first}")
        # Everything that overlaps or touches [first, last] melts into one interval.
        low = bisect_right(self._lasts, first - 2)
        high = bisect_right(self._firsts, last + 1)
        if low < high:
            first = min(first, self._firsts[low])
            last = max(last, self._lasts[high - 1])
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]

    def add_new(self, trade_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Add many ids in order of arrival and tell for each whether it was new.

        Of an id that comes twice in `trade_ids` the first is new. An ascending run without holes above
        everything known, the usual case, costs one comparison a trade.
        """
        count = len(trade_ids)
        if count == 0:
            return np.zeros(0, dtype=np.bool_)
        first, last = int(trade_ids[0]), int(trade_ids[-1])
        rising = last - first == count - 1 and bool((np.diff(trade_ids) == 1).all())
        if rising and (not self._lasts or first > self._lasts[-1]):
            self.add_range(first, last)
            return np.ones(count, dtype=np.bool_)
        unique, at = np.unique(trade_ids, return_index=True)
        known = self.contains(unique)
        new = np.zeros(count, dtype=np.bool_)
        new[at[~known]] = True
        fresh = unique[~known]
        if len(fresh):
            breaks = np.flatnonzero(np.diff(fresh) != 1)
            starts = np.concatenate(([0], breaks + 1))
            ends = np.concatenate((breaks, [len(fresh) - 1]))
            for start, end in zip(fresh[starts].tolist(), fresh[ends].tolist(), strict=True):
                self.add_range(start, end)
        return new

    def contains(self, trade_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell for each of many ids whether it is in the set."""
        if not self._firsts:
            return np.zeros(len(trade_ids), dtype=np.bool_)
        firsts = np.asarray(self._firsts, dtype=np.int64)
        lasts = np.asarray(self._lasts, dtype=np.int64)
        at = np.searchsorted(firsts, trade_ids, side="right") - 1
        found: npt.NDArray[np.bool_] = (at >= 0) & (trade_ids <= lasts[np.maximum(at, 0)])
        return found

    def covers(self, first: int, last: int) -> bool:
        """Tell whether every id from `first` to `last` is in the set."""
        i = bisect_right(self._firsts, first) - 1
        return i >= 0 and last <= self._lasts[i]

    def first_missing_from(self, trade_id: int) -> int:
        """Return the lowest id from `trade_id` on that is not in the set."""
        i = bisect_right(self._firsts, trade_id) - 1
        return self._lasts[i] + 1 if i >= 0 and trade_id <= self._lasts[i] else trade_id

    def missing_between(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the ranges of ids from `first` to `last` that are not in the set."""
        missing: list[tuple[int, int]] = []
        position = first
        for i in range(bisect_right(self._lasts, first - 1), len(self._firsts)):
            if self._firsts[i] > last:
                break
            if self._firsts[i] > position:
                missing.append((position, self._firsts[i] - 1))
            position = max(position, self._lasts[i] + 1)
        if position <= last:
            missing.append((position, last))
        return missing

    def forget_below(self, trade_id: int) -> None:
        """Drop every id smaller than `trade_id`."""
        cut = bisect_right(self._lasts, trade_id - 1)
        del self._firsts[:cut], self._lasts[:cut]
        if self._firsts and self._firsts[0] < trade_id:
            self._firsts[0] = trade_id
