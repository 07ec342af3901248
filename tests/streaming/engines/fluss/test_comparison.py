"""What counts as missing in the archive: what Flink passed by, and not what is on its way."""

from dataclasses import dataclass, field

from streaming.engines.fluss.comparison import LONGEST_PAUSE_SECONDS, Comparison, Missing
from streaming.spine.contract import Partition

TRADES = Partition("trades", 0)
BOOK = Partition("book", 2)
GRACE = 30.0


@dataclass
class Archive:
    """An `Archived` that holds what it is told."""

    held: dict[Partition, set[int]] = field(default_factory=lambda: {TRADES: set(), BOOK: set()})
    left_behind: int = 0

    def refresh(self) -> None:
        raise AssertionError("that is the caller's")

    def frontier(self, partition: Partition) -> int:
        return min(set(range(10**4)) - self.held[partition])

    def reached(self, partition: Partition) -> int:
        return self.left_behind

    def holes(self, partition: Partition, end: int) -> list[tuple[int, int]]:
        ranges: list[tuple[int, int]] = []
        for offset in sorted(set(range(end)) - self.held[partition]):
            if ranges and ranges[-1][1] == offset - 1:
                ranges[-1] = (ranges[-1][0], offset)
            else:
                ranges.append((offset, offset))
        return ranges


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def compared(archive: Archive) -> tuple[Comparison, Clock]:
    clock = Clock()
    return Comparison(archive, grace_seconds=GRACE, clock=clock), clock


def test_a_hole_counts_once_it_is_old() -> None:
    archive = Archive()
    comparison, clock = compared(archive)
    archive.held[TRADES] = {*range(10), *range(13, 20)}
    found = []
    for acknowledged in (20, 30, 40, 50, 60):
        found.append(comparison.compare({TRADES: acknowledged}))
        clock.now += 10
    hole = [Missing(TRADES, 10, 12)]
    assert found == [[], [], [], hole, hole]
    assert hole[0].messages == 3
    archive.held[TRADES] |= {10, 11, 12}
    assert comparison.compare({TRADES: 60}) == []


def test_what_flink_has_not_reached_yet_is_not_missing() -> None:
    archive = Archive()
    comparison, clock = compared(archive)
    archive.held[TRADES] = set(range(10))
    for acknowledged in range(20, 2000, 20):  # Flink is down for hours, the market goes on
        assert comparison.compare({TRADES: acknowledged}) == []
        clock.now += 10
    archive.held[TRADES] |= set(range(50, 1900))
    assert comparison.compare({TRADES: 2000}) == [Missing(TRADES, 10, 49)]


def test_a_product_that_comes_after_another_is_on_its_way_while_it_comes_forward() -> None:
    archive = Archive()
    comparison, clock = compared(archive)
    archive.held[TRADES] = {*range(10), *range(10, 100, 2)}  # even ones are of the faster product
    archive.held[TRADES].remove(4)
    for archive.left_behind in (9, 11, 13):
        archive.held[TRADES].add(archive.left_behind)
        found = comparison.compare({TRADES: 100})
        clock.now += GRACE
    assert found == [Missing(TRADES, 4, 4)]
    found = comparison.compare({TRADES: 100})  # it stands still
    assert found == [Missing(TRADES, 4, 4), *(Missing(TRADES, at, at) for at in range(15, 100, 2))]


def test_the_last_messages_are_missing_when_nothing_comes_after_them() -> None:
    archive = Archive()
    comparison, clock = compared(archive)
    archive.held[TRADES] = set(range(10))
    assert comparison.compare({TRADES: 15, BOOK: 0}) == []
    clock.now += GRACE
    assert comparison.compare({TRADES: 15, BOOK: 0}) == [Missing(TRADES, 10, 14)]


def test_only_the_old_part_of_a_hole_counts() -> None:
    archive = Archive()
    comparison, clock = compared(archive)
    archive.held[TRADES] = {*range(10), 45}
    comparison.compare({TRADES: 20})
    clock.now += GRACE
    assert comparison.compare({TRADES: 50}) == [Missing(TRADES, 10, 19)]


def test_it_is_pushed_less_and_less_often_while_it_stays_missing() -> None:
    archive = Archive()
    comparison, clock = compared(archive)
    archive.held[TRADES] = {0, 2}
    comparison.compare({TRADES: 3})
    clock.now += GRACE
    pauses = []
    for _ in range(7):
        (missing,) = comparison.compare({TRADES: 3})
        assert comparison.due(missing)
        comparison.pushed({TRADES})
        pushed_at = clock.now
        while not comparison.due(missing):
            clock.now += 1
        pauses.append(clock.now - pushed_at)
    assert pauses == [30, 60, 120, 240, 480, LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS]
    archive.held[TRADES].add(1)
    assert comparison.compare({TRADES: 3}) == []
    archive.held[TRADES].remove(2)
    clock.now += GRACE
    (missing,) = comparison.compare({TRADES: 3})
    assert comparison.due(missing)  # another hole: at once


def test_offsets_that_went_back_are_new_again() -> None:
    archive = Archive()
    comparison, clock = compared(archive)
    comparison.compare({TRADES: 20})
    clock.now += GRACE
    comparison.forget()
    assert comparison.compare({TRADES: 20}) == []
    clock.now += GRACE
    assert comparison.compare({TRADES: 20}) == [Missing(TRADES, 0, 19)]
