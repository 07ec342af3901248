"""The line of the stations and what is wrong at them, from metrics that were served and scraped."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from free_ports import free_ports
from prometheus_client import REGISTRY
from typed_commands import environment

from lakehouse.home import Home
from lakehouse.market.time import now_us
from lakehouse.settings import Settings, load_settings
from streaming.engines.flink import metrics as flink
from streaming.engines.flink.job_manager import Checkpoints, Job
from streaming.engines.flink.reporting import Reporter
from streaming.engines.flink.watch import CIRCLE_RESTARTS, Look
from streaming.engines.fluss.metrics import MISSING
from streaming.engines.metrics import Progress
from streaming.feed.metrics import BUFFERED
from streaming.spine.contract import Partition
from streaming.workers.metrics import Samples, scrape, serve
from streaming.workers.stations import problems, stations

WORKERS = ("feed", "bridge", "flink_job")


class Bridge:
    """A stage as its metrics see it."""

    name = "bridge"

    def lag(self) -> dict[Partition, int]:
        return {Partition("trades", 0): 7, Partition("book", 2): 5}

    def newest_us(self) -> Mapping[str, int]:
        return {}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path, profile="cluster", metrics_port=0)


@pytest.fixture
def home(settings: Settings) -> Iterator[Home]:
    """A home whose three workers answer: this process, for all of them, as if it had just started."""
    made = Home(settings.home, "simulated").create()
    _forget()
    progress = Progress(Bridge())
    REGISTRY.register(progress)
    for worker in WORKERS:
        serve(worker, settings, made)
    yield made
    REGISTRY.unregister(progress)
    _forget()


def _forget() -> None:
    """Take back what was measured: tests before these have run a cluster's keeper in this process too."""
    for metric in (flink.STATE, flink.FAILURE, flink.LAG_ROWS, MISSING):
        metric.clear()
    flink.CIRCLING.set(0)
    flink.RUNNING.set(0)
    BUFFERED.set(0)


def samples(home: Home) -> dict[str, Samples | None]:
    return {worker: scrape(home, worker) for worker in WORKERS}


def look(restarts: int = 0, state: str = "RUNNING", failure: str | None = None, *, age: float = 3) -> Look:
    last_us = now_us() - int(age * 1e6)
    job = Job("a" * 32, "lakehouse", state, 0, 0)
    return Look(job, restarts, Checkpoints(9, 0, last_us, "file:/c", 0.1, 1), {}, failure)


def test_each_station_says_what_waits_before_it(home: Home, settings: Settings) -> None:
    BUFFERED.set(2)
    Reporter().tell(look())
    flink.LAG_ROWS.labels("trades").set(1_230)
    found = samples(home)
    before, _, tables = stations("feed 0.2 s old", found).rpartition(" → ")
    assert before == "feed 0.2 s old → log 2 waiting → Fluss 12 behind → Flink 1,230 rows behind"
    said = re.fullmatch(r"tables (\d+\.\d) s old", tables)
    assert said
    assert 3 <= float(said[1]) < 30
    assert problems(found, settings) == []


def test_workers_that_do_not_answer_are_question_marks(settings: Settings) -> None:
    nobody: dict[str, Samples | None] = dict.fromkeys(WORKERS)
    assert stations("feed ?", nobody) == "feed ? → log ? → Fluss ? → Flink ? → tables ?"
    assert problems(nobody, settings) == []  # that they don't answer is said of the workers


def test_what_the_archive_lacks_is_wrong_until_it_has_it(home: Home, settings: Settings) -> None:
    Reporter().tell(look())
    MISSING.labels("trades").set(1_500)
    MISSING.labels("book").set(0)
    assert problems(samples(home), settings) == [
        "1,500 messages of trades are in the log and not in the archive; they are pushed again until they "
        "are there"
    ]
    MISSING.labels("trades").set(0)
    assert problems(samples(home), settings) == []


def test_a_job_that_restarts_in_circles_is_wrong_with_its_root_cause(home: Home, settings: Settings) -> None:
    report = Reporter()
    cause = 'LogOffsetOutOfRange: the "end"\nis 5'
    for restarts in range(CIRCLE_RESTARTS):
        report.tell(look(restarts, failure=cause if restarts else None))
        assert problems(samples(home), settings) == []
    report.tell(look(CIRCLE_RESTARTS, failure=cause))
    assert problems(samples(home), settings) == [f"the streaming job restarts in circles: {cause}"]


def test_a_job_that_does_not_run_is_wrong(home: Home, settings: Settings) -> None:
    report = Reporter()
    report.tell(look(1, "RESTARTING", "IOException: no space left"))
    found = samples(home)
    assert problems(found, settings) == ["the streaming job is restarting: IOException: no space left"]
    assert " → Flink restarting → " in stations("", found)
    report.tell(look(1))
    assert problems(samples(home), settings) == []
    report.lost("nobody answers")
    found = samples(home)
    assert problems(found, settings) == ["nothing is known of the streaming job (yet): nobody answers"]
    assert re.search(r" → Flink \? → tables \d", stations("", found)), "the tables get older all the same"


def test_tables_that_nothing_comes_into_are_wrong(home: Home, settings: Settings) -> None:
    Reporter().tell(look(age=75))
    (said,) = problems(samples(home), settings)
    assert re.fullmatch(r"nothing was committed to the tables for \d\d s", said)
    patient = settings.model_copy(update={"flink_checkpoint_seconds": 60.0})
    assert problems(samples(home), patient) == []


def test_a_job_that_is_far_behind_is_wrong(home: Home, settings: Settings) -> None:
    Reporter().tell(look())
    flink.LAG_ROWS.labels("quotes").set(600_000)
    assert problems(samples(home), settings) == ["the streaming job is 600,000 rows behind in quotes"]


def test_a_keeper_that_finds_nobody_says_whom(tmp_path: Path) -> None:
    ports = free_ports(3)
    chosen = {
        "profile": "cluster",
        "iceberg_catalog": "sqlite",
        "metrics_port": "0",
        "fluss_address": f"127.0.0.1:{ports[0]}",
        "fluss_timeout_seconds": "2",
        "flink_url": f"http://127.0.0.1:{ports[1]}",
        "flink_gateway_url": f"http://127.0.0.1:{ports[2]}",
    }
    home = Home(tmp_path / "data", "simulated")
    worker = subprocess.Popen(
        [sys.executable, "-m", "streaming.workers.flink_job"],
        env=environment(tmp_path, **chosen),
        cwd=Path(__file__).parents[3],
        stderr=subprocess.DEVNULL,
    )
    try:
        found: list[str] = []
        deadline = time.monotonic() + 60
        while not any(f"Fluss at 127.0.0.1:{ports[0]}" in sentence for sentence in found):
            assert time.monotonic() < deadline, found
            time.sleep(0.2)
            answer = scrape(home, "flink_job")
            found = problems({"bridge": None, "flink_job": answer}, load_settings(profile="cluster"))
        assert len(found) == 1
        assert found[0].startswith("nothing is known of the streaming job (yet): ")
    finally:
        os.kill(worker.pid, signal.SIGTERM)
        assert worker.wait(30) == 0
