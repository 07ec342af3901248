"""A product's day read in the order of the log, whatever the order and the sizes of its commits."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_rows import DAY, make_quotes

from lakehouse.home import Home
from lakehouse.stores import iceberg_reading
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import QUOTES

COMMITS = st.lists(st.lists(st.integers(0, 200), min_size=1, max_size=8), min_size=1, max_size=8)


def pieces_of(commits: list[list[int]]) -> list[list[int]]:
    """Return the offsets of each piece of five rows or more, read back after these commits."""
    with (
        tempfile.TemporaryDirectory() as folder,
        IcebergStore.open(Home(Path(folder), "market").create()) as store,
        pytest.MonkeyPatch.context() as patched,
    ):
        patched.setattr(iceberg_reading, "_ROWS_OF_A_PIECE", 5)
        for offsets in commits:
            store.append(QUOTES, make_quotes(offsets, "BTC-USD", DAY))
            store.append(QUOTES, make_quotes(offsets, "ETH-USD", DAY))
        pieces = store.in_log_order(QUOTES, "BTC-USD", DAY, ["spine_offset"])
        return [piece["spine_offset"].to_pylist() for piece in pieces]


@settings(max_examples=30)
@given(COMMITS)
def test_pieces_follow_each_other_in_the_order_of_the_log(commits: list[list[int]]) -> None:
    read = [offset for piece in pieces_of(commits) for offset in piece]
    assert read == sorted(offset for offsets in commits for offset in offsets)


def test_a_piece_holds_few_files_where_those_do_not_overlap() -> None:
    commits = [[10, 11, 12], [0, 1, 2], [20, 21, 22], [30, 31, 32], [33, 50], [40, 41]]
    assert pieces_of(commits) == [
        [0, 1, 2, 10, 11, 12],
        [20, 21, 22, 30, 31, 32],
        [33, 40, 41, 50],
    ]
