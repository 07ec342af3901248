"""`lakehouse up`: everything starts, what dies comes back, stopping is clean, and starting goes on."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from free_ports import free_ports
from running_up import Platform, eventually
from typed_commands import output_of, run


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    websocket_port, rest_port = free_ports(2)
    running = Platform(
        tmp_path,
        {
            "simulated_websocket_port": str(websocket_port),
            "simulated_rest_port": str(rest_port),
            "simulated_rate": "300",
            "metrics_port": "0",
            "backfill_days": "0",
            "commit_interval_ms": "300",
        },
    )
    yield running
    if running.process.poll() is None:
        running.stop()


def test_workers_come_back_and_a_second_start_goes_on(platform: Platform) -> None:
    while (first := platform.status()).returncode:
        assert "WRONG: " in first.stdout  # it says why, from the first moment on
        assert platform.process.poll() is None
        eventually(lambda: not platform.report().wrong or platform.process.poll() is not None, 240)
    assert "All is well." in first.stdout
    second = run(platform.folder, "up", "--no-dagster", **platform.settings)
    assert second.returncode == 1
    assert "already running" in second.stderr

    for worker in ("feed", "archive", "candles", "hot"):
        killed = platform.pid_of(worker)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda worker=worker, killed=killed: platform.pid_of(worker) != killed)
    eventually(platform.says_well)

    output = platform.stop()
    assert platform.process.returncode == 0, output
    assert "SIMULATED" in output
    assert "Stopped. Starting again goes on from here." in output
    after = platform.status()
    assert after.returncode == 1
    assert "nothing is running" in after.stdout
    before = int(platform.ask("SELECT count(*) AS n FROM trades")[0]["n"])
    assert before > 0

    platform.start()
    eventually(lambda: platform.count("SELECT count(*) FROM trades") > before)
    eventually(platform.says_well)
    platform.stop()
    whole = platform.ask(
        "SELECT product, count(*) AS n, count(DISTINCT trade_id) AS ids, max(trade_id) - min(trade_id) + 1 "
        "AS span FROM trades GROUP BY product"
    )
    assert len(whole) == 6
    for row in whole:
        assert row["n"] == row["ids"] == row["span"], row
    counted = platform.ask(
        "SELECT product, sum(trade_count) AS n, bool_and(exchange = 'simulated') AS simulated "
        "FROM candles_1m GROUP BY product"
    )
    assert {row["product"]: row["n"] for row in counted} == {row["product"]: row["n"] for row in whole}
    assert all(row["simulated"] == "true" for row in counted)


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"simulated_websocket_port": str(free_ports(1)[0]), "simulated_rest_port": str(port)}
        done = run(tmp_path, "up", "--no-dagster", metrics_port="0", backfill_days="0", **ports)
    assert done.returncode == 1
    assert f"port {port} on 127.0.0.1 can't be used" in done.stderr
    assert "LAKEHOUSE_SIMULATED_REST_PORT" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["up", "--feed", "kraken"], "LAKEHOUSE_FEED: 'kraken' is none of"),
        (["stream", "--feed", "coinbase", "--drain"], "has no end to drain to"),
        (["stream", "--feed", "recording:none.jsonl", "--drain"], "none.jsonl"),
        (["sql", "SELECT 1"], "holds no simulated data yet: start `lakehouse up` first"),
    ],
)
def test_what_can_not_be_done_is_said_without_a_traceback(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_every_command(tmp_path: Path) -> None:
    text = output_of(tmp_path, "--help")
    for command in ("up", "stream", "record", "sql", "status"):
        assert f"\n  {command} " in text
