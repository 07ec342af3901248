"""Fluss loses what it acknowledged, under a running Flink job: noticed, visible, and repaired from the log.

As it is set up here Fluss loses nothing in these kills. So it is set up as it comes: it notes once in a while
up to where its rows are safe, and a server that was killed forgets what came after the last note.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from bridge_world import TABLETS
from busy_market import BusyMarket, Published
from market_path import MarketPath, market_path
from running_cluster import RunningCluster, running_cluster
from running_workers import wait_until

from streaming.workers.status import report

RATE = 5_000
FIRST_SECONDS = 120.0
REPAIR_SECONDS = 180.0

NOTED_EVERY = "1min"

MISSING = "lakehouse_bridge_missing_messages"
NOTICED = "are in the log and not in the archive"


@contextmanager
def forgetful_cluster(*, in_sync: int) -> Iterator[RunningCluster]:
    """A cluster whose tablet servers forget up to a minute of acknowledged rows when they are killed."""
    with running_cluster() as cluster:
        for tablet in TABLETS:
            file = cluster.cluster.place.configuration(tablet) / "server.yaml"
            text = file.read_text()
            text = _with(text, "log.replica.high-watermark.checkpoint-interval", NOTED_EVERY)
            text = _with(text, "log.replica.min-in-sync-replicas-number", str(in_sync))
            file.write_text(text)
        cluster.stop(*TABLETS)
        cluster.start(*TABLETS)
        yield cluster


def _with(text: str, name: str, value: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name}:")]
    return text.replace(line, f"{name}: {value}")


class Repair(NamedTuple):
    """How a loss was repaired."""

    seconds: float
    most_missing: float
    """By the bridge's metric."""
    said: list[str]
    """What `lakehouse status` called wrong about it."""


def repaired(path: MarketPath, wanted: Published) -> Repair:
    """Wait until the tables hold what was published, and watch what is said meanwhile."""
    started = time.monotonic()
    most_missing, said = 0.0, []
    while lacking := path.lacking(wanted):
        took = time.monotonic() - started
        missing = path.metric("bridge", MISSING) or 0
        if missing > most_missing:
            print(f"{took:5.1f} s: {missing:,.0f} messages missing; {lacking}")
            most_missing = missing
            said = said or [one for one in report(path.settings, path.home).wrong if NOTICED in one]
        assert took < REPAIR_SECONDS, f"after {took:.0f} s: {lacking}\n{path.logs()}"
        time.sleep(0.5)
    return Repair(time.monotonic() - started, most_missing, said)


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", ["all three", "one replica", "one replica, quiet market", "unseen"])
def test_lost_rows_are_noticed_and_repaired(
    case: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not request.config.getoption("--full"):
        pytest.skip("only with --full")
    replicas = 3 if case == "all three" else 1
    with (
        forgetful_cluster(in_sync=min(replicas, 2)) as cluster,
        market_path(cluster, tmp_path, monkeypatch, fluss_replicas=replicas) as path,
        BusyMarket(path.home, RATE, request.config.getoption("--seed")) as market,
    ):
        path.wait_for(market.published(), FIRST_SECONDS)
        time.sleep(15)
        if case == "unseen":
            # The bridge dies too, and what it knew of the logs: only the archive tells what Flink passes by.
            path.kill("bridge", TABLETS[0])
            (path.home.folder / "fluss_ends.json").unlink()
        else:
            path.kill(*(TABLETS if replicas > 1 else TABLETS[:1]))
        if case == "one replica, quiet market":
            market.stop()
        cluster.start()
        found = repaired(path, market.published())
        path.wait_for(market.stop(), REPAIR_SECONDS)
        wait_until(lambda: path.metric("bridge", MISSING) == 0, 60, "nothing is missing any more")
        shorter = path.metric("bridge", "lakehouse_bridge_shorter_logs_total") or 0
        rows = path.check()
    counts = ", ".join(f"{count:,} of {table}" for table, count in rows.items())
    print(
        f"{case}: shorter logs {shorter:.0f} times, up to {found.most_missing:,.0f} messages missing, all "
        f"there {found.seconds:.0f} s after the kill; {counts}; {found.said}"
    )
    if case == "unseen":
        assert found.most_missing > 0
        assert found.said
    else:
        assert shorter > 0
