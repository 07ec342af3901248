"""Files that nothing names: when they are deleted."""

from datetime import timedelta
from pathlib import Path

import msgspec

from lakehouse.stores.orphans import Sweep, delete_due, settle, sweep

GRACE = timedelta(minutes=10)
NONE = timedelta(0)


def test_what_was_forgotten_is_deleted_after_its_grace_without_looking_for_it(tmp_path: Path) -> None:
    record, forgotten, other = tmp_path / "unnamed.json", tmp_path / "forgotten", tmp_path / "other"
    for path in (forgotten, other, tmp_path / ".forgotten.crc"):
        path.write_bytes(b"1234")
    assert delete_due(record, NONE) == Sweep(0, 0, 0)
    settle(record, {str(forgotten), str(tmp_path / "gone already")})
    assert delete_due(record, GRACE) == Sweep(0, 0, 2)
    assert delete_due(record, NONE) == Sweep(2, 8, 0)
    assert not forgotten.exists()
    assert other.exists()


def test_an_orphan_is_deleted_at_the_second_look_a_grace_later(tmp_path: Path) -> None:
    record, orphan, named = tmp_path / "unnamed.json", tmp_path / "orphan", tmp_path / "named"
    orphan.touch()
    named.touch()
    assert sweep([orphan, named], {str(named)}, record, GRACE) == Sweep(0, 0, 1)
    assert delete_due(record, NONE) == Sweep(0, 0, 1)  # nothing says that it was ever named
    assert sweep([orphan, named], {str(named)}, record, GRACE) == Sweep(0, 0, 1)
    assert sweep([orphan, named], {str(named)}, record, NONE) == Sweep(1, 0, 0)
    assert named.exists()


def test_a_clock_that_stepped_back_or_a_damaged_record_loses_no_file_for_ever(tmp_path: Path) -> None:
    record, orphan = tmp_path / "unnamed.json", tmp_path / "orphan"
    orphan.touch()
    record.write_bytes(b'{"orphan": 1')
    assert sweep([orphan], set(), record, GRACE) == Sweep(0, 0, 1)
    settle(record, {str(orphan)})
    seen = msgspec.json.decode(record.read_bytes())
    record.write_bytes(
        msgspec.json.encode({path: [since + 86_400, named] for path, (since, named) in seen.items()})
    )
    assert delete_due(record, GRACE) == Sweep(1, 0, 0)
