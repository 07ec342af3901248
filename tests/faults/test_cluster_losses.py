"""Fluss loses what it acknowledged, under a running Flink job: noticed, visible, and repaired from the log.

As it is set up here Fluss loses nothing in these kills. So it is set up as it comes: it notes once in a while
up to where its rows are safe, and a server that was killed forgets what came after the last note.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bridge_world import TABLETS
from busy_market import BusyMarket
from market_path import MarketPath, market_path
from running_cluster import RunningCluster, running_cluster

RATE = 5_000
FIRST_SECONDS = 120.0
REPAIR_SECONDS = 180.0

NOTED_EVERY = "1min"


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


def repaired(path: MarketPath, market: BusyMarket) -> tuple[float, float]:
    """Wait until the tables hold what was published so far; return after how long, and how much lacked."""
    wanted = market.published()
    started = time.monotonic()
    most_missing = 0.0
    said = None
    while lacking := path.lacking(wanted):
        took = time.monotonic() - started
        missing = path.metric("bridge", "lakehouse_bridge_missing_messages") or 0
        seen = (
            missing,
            path.metric("bridge", "lakehouse_bridge_shorter_logs_total"),
            path.metric("bridge", "lakehouse_bridge_repushed_messages_total"),
            path.metric("flink_job", "lakehouse_flink_restarts"),
            path.metric("flink_job", "lakehouse_flink_circling"),
        )
        if seen != said:
            said = seen
            print(f"{took:5.1f} s: missing, shorter, repushed, restarts, circling: {seen}; {lacking}")
        most_missing = max(most_missing, missing)
        assert took < REPAIR_SECONDS, f"after {took:.0f} s: {lacking}\n{path.logs()}"
        time.sleep(0.5)
    return time.monotonic() - started, most_missing


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("replicas", "killed"), [(3, TABLETS), (1, TABLETS[:1])], ids=["all", "one replica"])
def test_lost_rows_are_noticed_and_repaired(
    replicas: int,
    killed: tuple[str, ...],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not request.config.getoption("--full"):
        pytest.skip("only with --full")
    with (
        forgetful_cluster(in_sync=min(replicas, 2)) as cluster,
        market_path(cluster, tmp_path, monkeypatch, fluss_replicas=replicas) as path,
        BusyMarket(path.home, RATE, request.config.getoption("--seed")) as market,
    ):
        path.wait_for(market.published(), FIRST_SECONDS)
        time.sleep(15)
        path.kill(*killed)
        cluster.start()
        took, missing = repaired(path, market)
        path.wait_for(market.stop(), REPAIR_SECONDS)
        rows = path.check()
    counts = ", ".join(f"{count:,} of {table}" for table, count in rows.items())
    print(f"up to {missing:,.0f} messages missing, all there {took:.0f} s after the kill; {counts}")
    assert missing > 0
