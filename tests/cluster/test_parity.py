"""One recorded day through both profiles: the tables are equal row by row."""

from pathlib import Path

import pyarrow as pa
import pytest
from binance_recording import write_recording
from market_recording import record_market
from running_cluster import RunningCluster

from lakehouse.home import Home, home_of
from lakehouse.settings import Settings, load_settings
from lakehouse.stores import sql
from lakehouse.stores.schemas import TABLES
from streaming.workers.drain import drain

COMPARED = ("trades", "candles_1m", "quotes", "book", "gaps", "quarantine", "intake")

# Two clocks differ between two runs: when the log took a message, and where it put it.
NOT_COMPARED = {"recorded_at", "spine_partition", "spine_offset"}

FAULTS = "gap:0.0005,duplicate:0.001,reordering:0.001,late:0.0005:1-90,malformed:0.0005"


@pytest.fixture
def recorded_market(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    full = request.config.getoption("--full")
    path = tmp_path / "market.jsonl.zst"
    seconds, rate = (1_800, 2_000.0) if full else (180, 200.0)
    record_market(path, seed=request.config.getoption("--seed"), seconds=seconds, rate=rate, faults=FAULTS)
    return path


@pytest.fixture
def recorded_binance(market_data: Path, tmp_path: Path) -> Path:
    path = tmp_path / "btcusdt.jsonl.zst"
    write_recording(market_data, path)
    return path


def rows(home: Home, table: str) -> pa.Table:
    """All rows of a table, in an order that is the same for the same rows."""
    columns = [name for name in TABLES[table].schema.names if name not in NOT_COMPARED]
    named = ", ".join(f'"{name}"' for name in columns)
    with sql.connect(home) as connection:
        return connection.sql(f"SELECT {named} FROM {table} ORDER BY ALL").to_arrow_table()


def compare(embedded: Settings, cluster: Settings) -> None:
    """Take the recording through both and compare."""
    summaries = [drain(settings) for settings in (embedded, cluster)]
    first, second = ({**summary, "seconds": 0} for summary in summaries)
    assert first == second
    homes = [home_of(settings) for settings in (embedded, cluster)]
    for table in COMPARED:
        expected, found = (rows(home, table) for home in homes)
        assert found.num_rows == expected.num_rows, table
        assert found.equals(expected), table
    assert rows(homes[0], "trades").num_rows > 5_000
    assert rows(homes[0], "candles_1m").num_rows > 3


@pytest.mark.timeout(3600)
def test_a_simulated_market_with_faults_is_the_same_in_both(
    cluster: RunningCluster, recorded_market: Path, tmp_path: Path
) -> None:
    feed = f"recording:{recorded_market}"
    compare(
        load_settings(home=tmp_path / "embedded", feed=feed),
        cluster.settings(tmp_path / "cluster", feed=feed),
    )


@pytest.mark.timeout(600)
def test_a_real_recording_is_the_same_in_both(
    cluster: RunningCluster, recorded_binance: Path, tmp_path: Path
) -> None:
    feed = f"recording:{recorded_binance}"
    compare(
        load_settings(home=tmp_path / "embedded", feed=feed),
        cluster.settings(tmp_path / "cluster", feed=feed),
    )
