"""The processes of the three stages: started, asked, killed, stopped, as the supervisor does it."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from log_messages import START, publish, trade
from structlog.testing import capture_logs

from lakehouse.home import Home
from lakehouse.stores.hot import HotStore
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, TRADES
from streaming.engines.embedded.decode import MalformedMessageError
from streaming.engines.embedded.stage import StepResult
from streaming.spine.contract import Partition, SpineUnavailableError, partition_number
from streaming.spine.sqlite import SqliteSpine
from streaming.workers import stage_loop
from streaming.workers.metrics import scrape, total
from streaming.workers.stage_loop import PATIENCE, StageFailedError, run
from streaming.workers.stop_signal import StopSignal

STAGES = ("hot", "archive", "candles")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, "simulated").create()


Start = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def start(home: Home) -> Iterator[Start]:
    """Start a worker; what still runs at the end is killed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LAKEHOUSE_")}
    environment |= {"LAKEHOUSE_HOME": str(home.root), "LAKEHOUSE_METRICS_PORT": "0"}
    environment |= {"LAKEHOUSE_COMMIT_INTERVAL_MS": "50"}
    running: list[subprocess.Popen[bytes]] = []

    def started(name: str) -> "subprocess.Popen[bytes]":
        log = (home.logs / f"{name}.log").open("ab")
        command = [sys.executable, "-m", f"streaming.workers.{name}"]
        running.append(subprocess.Popen(command, env=environment, stderr=log, cwd=Path(__file__).parents[3]))
        log.close()
        return running[-1]

    yield started
    for process in running:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"waited 30 s for {what}"
        time.sleep(0.02)


def caught_up(home: Home, name: str) -> bool:
    samples = scrape(home, name)
    return samples is not None and total(samples, "lakehouse_engine_lag_messages") == 0


def test_killed_at_random_moments_nothing_is_lost_or_doubled(
    home: Home, start: Start, request: pytest.FixtureRequest
) -> None:
    chance = random.Random(request.config.getoption("--seed"))
    processes = {name: start(name) for name in STAGES}
    with SqliteSpine.open(home.spine) as spine:
        published = 0
        kills = [(chance.uniform(1.0, 3.5), name) for name in STAGES]
        began = time.monotonic()
        while kills or time.monotonic() - began < 4:
            publish(
                spine,
                [
                    trade(product, published + i + 1, START + (published + i) * 100_000)
                    for product in ("BTC-USD", "ETH-USD")
                    for i in range(40)
                ],
            )
            published += 40
            time.sleep(0.01)
            for kill in [kill for kill in kills if time.monotonic() - began > kill[0]]:
                kills.remove(kill)
                processes[kill[1]].kill()
                processes[kill[1]].wait()
                processes[kill[1]] = start(kill[1])
        for name in STAGES:
            wait_for(lambda name=name: caught_up(home, name), f"{name} to catch up")  # type: ignore[misc]
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        assert [process.wait(30) for process in processes.values()] == [0, 0, 0]
        for group in STAGES:
            number = partition_number("BTC-USD", 3)
            assert spine.committed(group, Partition("trades", number)) == spine.end(
                Partition("trades", number)
            )
    everything = list(range(1, published + 1))
    with IcebergStore.open(home) as archive:
        for product in ("BTC-USD", "ETH-USD"):
            rows = archive.scan(TRADES, product=product, columns=["trade_id"])
            assert sorted(rows["trade_id"].to_pylist()) == everything
    with PaimonStore.open(home) as candles:
        rows = candles.scan(CANDLES_1M, product="BTC-USD").sort_by("start")
        assert sum(rows["trade_count"].to_pylist()) == published
        assert rows["first_trade_id"].to_pylist()[1:] == [
            i + 1 for i in rows["last_trade_id"].to_pylist()[:-1]
        ]
        assert rows["is_complete"].to_pylist() == [True] * (rows.num_rows - 1) + [False]
    with HotStore.open(home.hot_store) as hot:
        assert hot.latest()["trade_id"].to_pylist() == [published, published]
        assert hot.recent("ETH-USD")["trade_id"].to_pylist() == everything


def test_metrics_tell_lag_and_freshness(home: Home, start: Start) -> None:
    with SqliteSpine.open(home.spine) as spine:
        now = time.time_ns() // 1000
        publish(spine, [trade("BTC-USD", 1, now - 100_000_000), trade("BTC-USD", 1, now - 100_000_000)])
    start("archive")
    wait_for(lambda: caught_up(home, "archive"), "the archive to catch up")
    samples = scrape(home, "archive")
    assert samples is not None
    labels = (("product", "BTC-USD"), ("stage", "archive"))
    assert 99 < samples["lakehouse_engine_freshness_seconds"][labels] < 160
    assert samples["lakehouse_engine_messages_total"][("stage", "archive"), ("topic", "trades")] == 2
    assert samples["lakehouse_engine_duplicates_total"][(("stage", "archive"),)] == 1
    assert (
        samples["lakehouse_engine_commit_duration_seconds_count"][("stage", "archive"), ("table", "trades")]
        == 1
    )
    assert len(samples["lakehouse_engine_lag_messages"]) == 18


def test_a_stage_runs_once(home: Home, start: Start) -> None:
    first = start("hot")
    wait_for(lambda: caught_up(home, "hot"), "the first to run")
    assert start("hot").wait(30) == 1
    assert "worker-hot is already running" in (home.logs / "hot.log").read_text()
    first.send_signal(signal.SIGINT)
    assert first.wait(30) == 0


class Failing:
    """A stage whose steps fail as they are told to."""

    name = "failing"

    def __init__(self, errors: list[Exception | None], stop: StopSignal) -> None:
        self.errors = errors
        self.stop = stop
        self.steps = 0

    def step(self) -> StepResult:
        self.steps += 1
        if not self.errors:
            self.stop.set()
            return StepResult()
        error = self.errors.pop(0)
        if error:
            raise error
        return StepResult({"trades": 1}, behind=True)

    def lag(self) -> dict[Partition, int]:
        return {}

    def newest_us(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass


@pytest.fixture
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_loop, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(stage_loop, "_LONGEST_PAUSE_SECONDS", 0.001)


@pytest.mark.usefixtures("_no_pauses")
def test_a_failed_step_is_tried_again_and_says_where() -> None:
    stop = StopSignal()
    malformed = MalformedMessageError(Partition("trades", 2), 17, "rubbish")
    both = ExceptionGroup("two", [malformed, SpineUnavailableError("no disk")])
    stage = Failing([malformed, None, both, None], stop)
    with capture_logs() as logs:
        run(stage, stop, 0.0)
    assert stage.errors == []
    failures: list[dict[str, Any]] = [dict(line) for line in logs if line["event"] == "a step failed"]
    assert [(line.get("topic"), line.get("partition"), line.get("offset")) for line in failures] == [
        ("trades", 2, 17),
        ("trades", 2, 17),
        (None, None, None),
    ]


@pytest.mark.usefixtures("_no_pauses")
def test_a_stage_that_always_fails_gives_up() -> None:
    stop = StopSignal()
    stage = Failing([OSError("disk")] * (PATIENCE + 5), stop)
    with capture_logs(), pytest.raises(StageFailedError, match="disk"):
        run(stage, stop, 0.0)
    assert stage.steps == PATIENCE
