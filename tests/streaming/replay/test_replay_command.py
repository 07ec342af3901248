"""`lakehouse replay` as a process: killed and started again, and what it says."""

import json
import os
import signal
import subprocess
import sys
import time

from replay_world import DAY, ReplayWorld, traded

from lakehouse.stores.schemas import REPLAY_CANDLES_1M, TRADES
from streaming.replay.settings import interrupted


def command(world: ReplayWorld, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {
        "LAKEHOUSE_HOME": str(world.home.root),
        "LAKEHOUSE_COMMIT_INTERVAL_MS": "50",
    }
    lakehouse = [sys.executable, "-m", "lakehouse.command_line", "replay", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(lakehouse, env=environment, stdout=pipe, stderr=pipe, text=True)


def test_killed_in_the_middle_and_started_again_it_makes_the_same(world: ReplayWorld) -> None:
    trades = traded(seed=5, minutes=10)
    world.seal(trades)
    day = DAY.isoformat()
    killed = command(world, "--day", day, "--speed", "120")
    deadline = time.monotonic() + 60
    while world.candles.scan(REPLAY_CANDLES_1M).num_rows < 6:
        assert time.monotonic() < deadline
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    (replay_id,) = interrupted(world.candles)
    partly = world.replayed(replay_id)
    assert partly.num_rows < world.live().num_rows

    again = command(world, "--day", day, "--speed", "120")
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    said = json.loads(out.splitlines()[-1])
    assert said["replay_id"] == replay_id
    assert (said["finished"], said["trades"]) == (True, len(trades))
    assert 0 < said["published"] < len(trades)
    lines = [json.loads(line) for line in err.splitlines()]
    assert lines[-1]["trades"] == lines[-1]["total"] == len(trades)
    assert world.replayed(replay_id).equals(world.live())
    assert interrupted(world.candles) == set()
    assert world.archive.tags(TRADES)[f"replay.{replay_id}"] == said["snapshot_id"]


def test_what_cannot_be_replayed_is_one_sentence(world: ReplayWorld) -> None:
    world.seal(traded(count=50))
    refused = command(world, "--day", "2025-11-21")
    _, err = refused.communicate(timeout=60)
    assert refused.returncode == 1
    assert "no trade of 2025-11-21 is archived" in err
    assert "Traceback" not in err
