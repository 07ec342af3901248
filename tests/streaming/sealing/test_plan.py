from hypothesis import given
from hypothesis import strategies as st

from lakehouse.market.trade_ids import TradeIds
from streaming.sealing.plan import DayEdges, common, missing_ranges, requests, without

id_sets = st.sets(st.integers(1, 60), max_size=40)


def members(ids: TradeIds) -> set[int]:
    return {i for first, last in ids for i in range(first, last + 1)}


def as_ids(numbers: set[int]) -> TradeIds:
    return TradeIds((number, number) for number in numbers)


@given(id_sets, st.integers(1, 60), st.integers(0, 60))
def test_missing_are_exactly_the_unknown_ids_within_the_edges(known: set[int], first: int, last: int) -> None:
    ranges = missing_ranges(as_ids(known), DayEdges(first, last))
    listed = [i for low, high in ranges for i in range(low, high + 1)]
    assert listed == [i for i in range(first, last + 1) if i not in known]


@given(id_sets, st.integers(1, 20))
def test_requests_cover_what_is_missing_and_none_costs_more_pages_than_it_saves(
    missing: set[int], page: int
) -> None:
    ranges = list(as_ids(missing))
    asked = requests(ranges, page)
    covered = [i for low, high in asked for i in range(low, high + 1)]
    assert missing <= set(covered)
    assert len(covered) == len(set(covered))
    for low, high in asked:
        assert high - low < page or (low, high) in ranges
    assert sum(-((low - high - 1) // page) for low, high in asked) <= sum(
        -((low - high - 1) // page) for low, high in ranges
    )


@given(id_sets, id_sets)
def test_set_arithmetic(a: set[int], b: set[int]) -> None:
    assert members(without(as_ids(a), as_ids(b))) == a - b
    assert members(common(as_ids(a), as_ids(b))) == a & b
