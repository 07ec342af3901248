from datetime import date

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.market.gap import GapStatus
from lakehouse.market.time import day_start_us
from lakehouse.market.trade import Exchange
from lakehouse.market.trade_ids import TradeIds
from lakehouse.stores.schemas import GAPS
from streaming.sealing.gap_rows import gap_rows, news, standing

DAY = date(2025, 6, 10)
NOON = day_start_us(DAY) + 43_200_000_000
history = st.lists(
    st.tuples(st.sampled_from(list(GapStatus)), st.integers(1, 30), st.integers(0, 6)), max_size=8
)
id_sets = st.sets(st.integers(1, 40), max_size=25)


def rows(written: list[tuple[GapStatus, tuple[int, int]]], at_us: int) -> pa.Table:
    return gap_rows(
        written,
        "BTC-USD",
        DAY,
        Exchange.SIMULATED,
        {span: (None, at_us) for _, span in written},
        dict.fromkeys(GapStatus, "for a test"),
        at_us,
    )


def table(steps: list[tuple[GapStatus, int, int]]) -> pa.Table:
    parts = [
        rows([(status, (first, first + more))], NOON + i) for i, (status, first, more) in enumerate(steps)
    ]
    return pa.concat_tables([GAPS.schema.empty_table(), *parts])


def members(ids: TradeIds) -> set[int]:
    return {i for first, last in ids for i in range(first, last + 1)}


@given(history)
def test_the_latest_row_of_an_id_decides(steps: list[tuple[GapStatus, int, int]]) -> None:
    latest = {i: status for status, first, more in steps for i in range(first, first + more + 1)}
    now = standing(table(steps))
    for status in GapStatus:
        assert members(now[status]) == {i for i, known in latest.items() if known is status}


@given(history, id_sets, id_sets)
def test_news_make_the_table_say_what_is_so_and_then_there_is_no_news(
    steps: list[tuple[GapStatus, int, int]], known: set[int], lost: set[int]
) -> None:
    known_ids = TradeIds((i, i) for i in known - lost)
    lost_ids = TradeIds((i, i) for i in lost)
    before = table(steps)
    after = pa.concat_tables([before, rows(news(before, known_ids, lost_ids), NOON + 1000)])
    now = standing(after)
    assert members(now[GapStatus.UNFILLABLE]) >= lost
    assert not (members(now[GapStatus.UNFILLABLE]) | members(now[GapStatus.FOUND])) & (known - lost)
    assert news(after, known_ids, lost_ids) == []
