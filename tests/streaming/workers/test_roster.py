from pathlib import Path
from typing import Any

import pytest

from lakehouse.settings import load_settings
from streaming.workers.roster import WORKERS, workers

EXCHANGE_AND_FEED = ("exchange", "feed")


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, (*EXCHANGE_AND_FEED, "hot", "archive", "candles")),
        ({"feed": "binance"}, ("feed", "hot", "archive", "candles")),
        ({"profile": "cluster"}, (*EXCHANGE_AND_FEED, "bridge", "archive", "flink_job")),
        ({"hot_store": "fluss"}, (*EXCHANGE_AND_FEED, "bridge", "archive", "candles")),
        ({"profile": "cluster", "engine": "embedded"}, (*EXCHANGE_AND_FEED, "bridge", "archive", "candles")),
    ],
)
def test_the_workers_follow_the_tiers(chosen: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert workers(load_settings(**chosen)) == expected


def test_every_worker_is_a_module() -> None:
    folder = Path(__import__("streaming.workers", fromlist=["roster"]).__file__).parent
    for name in WORKERS:
        module = "simulated_exchange" if name == "exchange" else name
        assert (folder / f"{module}.py").exists(), f"{name} is listed, but no module runs it"
