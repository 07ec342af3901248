"""Files that nothing names: when they are looked for."""

import os
import time
from datetime import timedelta
from pathlib import Path

from lakehouse.stores.orphans import Sweep, looked, sweep

GRACE = timedelta(minutes=10)


def test_a_look_is_not_repeated_for_a_tenth_of_the_grace(tmp_path: Path) -> None:
    record = tmp_path / "unnamed.json"
    orphan = tmp_path / "orphan"
    orphan.touch()
    assert looked(record, GRACE) is None
    assert sweep([orphan], set(), record, GRACE) == Sweep(0, 0, 1)
    assert looked(record, GRACE) == Sweep(0, 0, 1)
    assert looked(record, timedelta(0)) is None
    os.utime(record, (0, time.time() - 61))
    assert looked(record, GRACE) is None


def test_a_look_is_due_after_a_clock_that_stepped_back_or_a_damaged_record(tmp_path: Path) -> None:
    record = tmp_path / "unnamed.json"
    sweep([], set(), record, GRACE)
    os.utime(record, (0, time.time() + 3600))
    assert looked(record, GRACE) is None
    record.write_bytes(b'{"orphan": 1')
    assert looked(record, GRACE) is None
