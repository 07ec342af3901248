from fractions import Fraction
from math import floor

from hypothesis import given
from hypothesis import strategies as st

from lakehouse.market.order_book import OrderBook

levels = st.lists(st.tuples(st.integers(1, 25), st.integers(0, 9)), max_size=30)
changes = st.lists(st.tuples(st.booleans(), levels, levels), min_size=1, max_size=12)


@given(changes)
def test_the_book_is_what_its_changes_say(steps: list[tuple[bool, list[tuple[int, int]], list]]) -> None:
    book = OrderBook()
    model: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for replace, bids, asks in steps:
        if replace:
            book.replace(bids, asks)
            model = ({}, {})
        else:
            book.apply(bids, asks)
        for side, changed in zip(model, (bids, asks), strict=True):
            side.update(changed)
            for price in [price for price, size in side.items() if size == 0]:
                del side[price]
        best_bids, best_asks = sorted(model[0].items(), reverse=True), sorted(model[1].items())
        assert book.bids() == best_bids
        assert book.asks() == best_asks
        assert (book.bids(3), book.asks(3)) == (best_bids[:3], best_asks[:3])
        top = book.top()
        if not best_bids or not best_asks:
            assert top is None
            assert not book.is_crossed
            continue
        assert top is not None
        assert top[:4] == (*best_bids[0], *best_asks[0])
        assert book.is_crossed == (best_bids[0][0] >= best_asks[0][0])
        bought, sold = (sum(size for _, size in side[:5]) for side in (best_bids, best_asks))
        assert top.imbalance == floor(Fraction(bought - sold, bought + sold) * 10**8)
