"""Which logs of Fluss are shorter than they were, also for the next bridge."""

from pathlib import Path

from streaming.engines.fluss.known_ends import KnownEnds

IDS = {"trades": 4, "quotes": 5}
ENDS = {("trades", 0): 10, ("trades", 1): 20, ("quotes", 0): 7}


def test_what_is_shorter_is_known_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "ends.json"
    KnownEnds(file).remember(ENDS, IDS)
    known = KnownEnds(file)
    assert known.lost(ENDS, IDS) == {}
    assert known.lost(ENDS | {("trades", 1): 12, ("quotes", 0): 9}, IDS) == {("trades", 1): 8}


def test_a_table_made_anew_has_lost_nothing() -> None:
    known = KnownEnds()
    known.remember(ENDS, IDS)
    new = IDS | {"trades": 6}
    assert known.lost(dict.fromkeys(ENDS, 0), new) == {("quotes", 0): 7}
    assert known.are_of(IDS)
    assert not known.are_of(new)


def test_a_damaged_file_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "ends.json"
    file.write_text('{"trades": {"table')
    known = KnownEnds(file)
    assert known.lost(dict.fromkeys(ENDS, 0), IDS) == {}
    known.remember(ENDS, IDS)
    assert KnownEnds(file).lost(dict.fromkeys(ENDS, 0), IDS) == ENDS
