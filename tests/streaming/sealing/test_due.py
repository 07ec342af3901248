from datetime import date, timedelta

from lakehouse.market.time import DAY_US, MINUTE_US, day_start_us
from lakehouse.stores.iceberg_partitions import PartitionStats
from lakehouse.stores.seals import SealRecord
from streaming.sealing.due import LOOK_BACK, day_end_us, due_of

DAY = date(2025, 6, 10)
LATENESS = 10
OVER = day_end_us(DAY, LATENESS)


def part(day: date, rows: int, product: str = "BTC-USD") -> PartitionStats:
    return PartitionStats(day, product, rows, 1, 1000, 1, rows)


def seal(rows: int, streamed: int) -> SealRecord:
    return SealRecord(rows, streamed, 1, rows, "0" * 64, True, 0)


def test_a_day_is_due_from_its_end_plus_the_lateness_horizon_on() -> None:
    assert day_start_us(DAY) + DAY_US + 10 * MINUTE_US == OVER
    parts = [part(DAY, 5)]
    assert due_of(parts, {}, OVER - 1, LATENESS, can_fetch=True) == []
    (due,) = due_of(parts, {}, OVER, LATENESS, can_fetch=True)
    assert (due.product, due.day) == ("BTC-USD", DAY)


def test_a_sealed_day_is_due_again_only_when_its_rows_change_and_each_change_is_another_cause() -> None:
    sealed = {("BTC-USD", DAY): seal(5, 5)}
    assert due_of([part(DAY, 5)], sealed, OVER, LATENESS, can_fetch=True) == []
    (six,) = due_of([part(DAY, 6)], sealed, OVER, LATENESS, can_fetch=True)
    (seven,) = due_of([part(DAY, 7)], sealed, OVER, LATENESS, can_fetch=True)
    assert six.cause != seven.cause


def test_a_streamed_product_is_sealed_for_the_day_on_which_the_stream_was_down() -> None:
    parts = [part(DAY, 5), part(DAY + timedelta(days=2), 5)]
    watermark = day_end_us(DAY + timedelta(days=1), LATENESS)
    due = due_of(parts, {}, watermark, LATENESS, can_fetch=True)
    assert [item.day for item in due] == [DAY, DAY + timedelta(days=1)]
    assert [item.day for item in due_of(parts, {}, watermark, LATENESS, can_fetch=False)] == [DAY]


def test_a_product_whose_stream_stands_still_is_over_by_the_others_time() -> None:
    parts = [part(DAY, 5), part(DAY + timedelta(days=1), 5, "ETH-USD")]
    due = due_of(parts, {}, OVER, LATENESS, can_fetch=False)
    assert [(item.product, item.day) for item in due] == [("BTC-USD", DAY)]


def test_history_that_a_person_backfilled_opens_no_holes() -> None:
    old = DAY - timedelta(days=3)
    parts = [part(old, 5), part(DAY, 5)]
    sealed = {("BTC-USD", old): seal(5, 0), ("BTC-USD", DAY): seal(5, 5)}
    assert due_of(parts, sealed, OVER, LATENESS, can_fetch=True) == []


def test_holes_are_looked_for_only_so_far_back() -> None:
    old = DAY - timedelta(days=400)
    parts = [part(old, 5), part(DAY + timedelta(days=1), 5)]
    due = due_of(parts, {("BTC-USD", old): seal(5, 5)}, OVER, LATENESS, can_fetch=True)
    assert len(due) == LOOK_BACK.days
    assert due[-1].day == DAY
