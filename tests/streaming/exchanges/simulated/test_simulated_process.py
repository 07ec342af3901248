"""The exchange as a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[4]


def start(tmp_path: Path, **settings: str) -> subprocess.Popen[str]:
    settings = {"home": str(tmp_path / "home"), "metrics_port": "0"} | settings
    environment = os.environ | {f"LAKEHOUSE_{name.upper()}": value for name, value in settings.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "streaming.workers.simulated_exchange"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_stops_cleanly_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    websocket_port, rest_port = str(free_port()), str(free_port())
    process = start(
        tmp_path,
        simulated_websocket_port=websocket_port,
        simulated_rest_port=rest_port,
        products="ETH-USD",
    )
    try:
        listed = None
        deadline = time.monotonic() + 20
        while listed is None:
            try:
                listed = httpx.get(f"http://127.0.0.1:{rest_port}/products").json()
            except httpx.TransportError:
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.05)
        assert [product["id"] for product in listed] == ["ETH-USD"]
        process.send_signal(number)
        _, errors = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert "none of its data is real" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("name", "value"), [("simulated_faults", "meteor:1"), ("simulated_rate", "0"), ("products", "../etc")]
)
def test_a_wrong_setting_is_one_sentence(tmp_path: Path, name: str, value: str) -> None:
    process = start(tmp_path, **{name: value})
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "can't run" in errors
    assert "Traceback" not in errors
