import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lakehouse.market.trade_ids import TradeIds

small = st.integers(1, 60)


class AgainstASet(RuleBasedStateMachine):
    """Whatever is done to the intervals, they are the set of integers they stand for."""

    def __init__(self) -> None:
        super().__init__()
        self.ids = TradeIds()
        self.model: set[int] = set()

    @rule(trade_id=small)
    def add(self, trade_id: int) -> None:
        assert self.ids.add(trade_id) == (trade_id not in self.model)
        self.model.add(trade_id)

    @rule(first=small, length=st.integers(1, 20))
    def add_range(self, first: int, length: int) -> None:
        self.ids.add_range(first, first + length - 1)
        self.model |= set(range(first, first + length))

    @rule(trade_ids=st.lists(small, max_size=30))
    def add_new(self, trade_ids: list[int]) -> None:
        expected = []
        for trade_id in trade_ids:
            expected.append(trade_id not in self.model)
            self.model.add(trade_id)
        assert self.ids.add_new(np.array(trade_ids, dtype=np.int64)).tolist() == expected

    @rule(trade_id=small)
    def forget_below(self, trade_id: int) -> None:
        self.ids.forget_below(trade_id)
        self.model = {known for known in self.model if known >= trade_id}

    @rule(first=small, length=st.integers(0, 30))
    def look(self, first: int, length: int) -> None:
        last = first + length
        missing = [i for a, b in self.ids.missing_between(first, last) for i in range(a, b + 1)]
        assert missing == [i for i in range(first, last + 1) if i not in self.model]
        assert self.ids.covers(first, last) == (not missing)
        lowest = next(i for i in itertools.count(first) if i not in self.model)
        assert self.ids.first_missing_from(first) == lowest

    @invariant()
    def is_the_set(self) -> None:
        intervals = list(self.ids)
        assert {i for a, b in intervals for i in range(a, b + 1)} == self.model
        assert all(b + 1 < c for (_, b), (c, _) in itertools.pairwise(intervals))
        assert len(self.ids) == len(self.model)
        assert self.ids.lowest == min(self.model, default=None)
        assert self.ids.highest == max(self.model, default=None)
        assert self.ids.contains(np.arange(1, 90)).tolist() == [i in self.model for i in range(1, 90)]


TestAgainstASet = AgainstASet.TestCase


@given(st.lists(small), st.lists(small))
def test_order_makes_no_difference(some: list[int], others: list[int]) -> None:
    one, two = TradeIds(), TradeIds()
    for trade_id in some + others:
        one.add(trade_id)
    for trade_id in others + some:
        two.add(trade_id)
    assert one == two
    assert TradeIds(one) == one
