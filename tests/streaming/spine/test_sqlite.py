"""What the SQLite spine promises beyond the contract: whole batches, one clock, exact retention."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kinds_of_log import SqliteLog

from lakehouse.market.time import now_us
from streaming.spine.contract import Partition
from streaming.spine.sqlite import SqliteSpine
from streaming.spine.topics import TRADES

TRADES_0, TRADES_1 = Partition(TRADES, 0), Partition(TRADES, 1)


def test_a_clock_set_back_does_not_make_time_decrease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SqliteSpine.open(tmp_path / "spine.db") as spine:
        for clock in (now_us(), now_us() - 3_600_000_000, now_us()):
            monkeypatch.setattr("streaming.spine.sqlite.now_us", lambda clock=clock: clock)
            spine.publish({TRADES_0: [b"m"]})
        times = list(spine.read(TRADES_0, 0, 10).published_us)
        assert times == sorted(times)


def test_retention_drops_all_it_may(tmp_path: Path) -> None:
    with SqliteSpine.open(tmp_path / "spine.db") as spine:
        for _ in range(10):
            spine.publish({TRADES_0: [b"x" * 100], TRADES_1: [b"x"]})
        spine.commit("g", {TRADES_0: 10, TRADES_1: 4})
        assert spine.retain({TRADES: ["g"]}, max_age_us=3_600_000_000, max_bytes=1_000) == 0
        assert spine.retain({TRADES: ["g"]}, max_age_us=3_600_000_000, max_bytes=350) == 7
        assert spine.retain({TRADES: ["g"]}, max_age_us=-1_000_000, max_bytes=350) == 3 + 4
        assert (spine.start(TRADES_0), spine.end(TRADES_0)) == (10, 10)
        assert spine.publish({TRADES_0: [b"c"]}) == {TRADES_0: 10}


def test_a_killed_publisher_leaves_whole_batches(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path)
    script = log.opener() + (
        "from streaming.spine.contract import Partition\n"
        "while True:\n"
        "    spine.publish({Partition('trades', n): [b'm'] * 20 for n in (0, 1)})\n"
        "    print(flush=True)\n"
    )
    for wait in (0.03, 0.08, 0.13):
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
        )
        assert process.stdout is not None
        assert process.stdout.readline()
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        with log.open() as spine:
            assert spine.end(TRADES_0) == spine.end(TRADES_1) > 0
            assert spine.end(TRADES_0) % 20 == 0
