import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import yaml
from sealed_world import KEY

from lakehouse.stores.schemas import TABLES
from lakehouse_assets.definitions import build_defs
from lakehouse_assets.resources import Lakehouse

Materialize = Callable[..., dg.ExecuteInProcessResult]

ROOT = Path(__file__).parents[2]


def test_definitions_can_be_loaded_and_are_fresh_each_time(lakehouse_settings: Path) -> None:
    one, other = build_defs(), build_defs()
    dg.Definitions.validate_loadable(one)
    assert one is not other
    assert {key.to_user_string() for key in one.resolve_asset_graph().get_all_asset_keys()} == {
        *("trades", "quotes", "book", "exchange_candles", "candles_1m", "candles_1h", "candles_1d"),
        *("metrics_daily", "liquidity", "exchange_health", "reconciliation", "replay_candles_1m"),
        *("stream/trades", "stream/quotes", "stream/book"),
        *(f"maintenance/{name}" for name in TABLES),
    }


def test_building_them_opens_nothing(lakehouse_settings: Path) -> None:
    build_defs()
    assert not lakehouse_settings.exists()


IMPORTING = """
import json, sys

home, seen = sys.argv[1], []

def hook(event, arguments):
    # A bind is no connection: urllib3 tries at import whether the machine has IPv6.
    if event in ("sqlite3.connect", "socket.connect", "socket.getaddrinfo"):
        seen.append([event, str(arguments[-1])])
    elif event in ("open", "os.listdir", "os.scandir") and str(arguments[0]).startswith(home):
        seen.append([event, str(arguments[0])])

sys.addaudithook(hook)
import lakehouse_assets.definitions
print(json.dumps(seen))
"""


def test_importing_them_opens_no_table_file_or_socket(tables: Lakehouse, materialize: Materialize) -> None:
    materialize(KEY)
    root = Path(tables.root)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, str(root)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert list(root.rglob("*.parquet"))
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_a_resource_can_be_replaced(lakehouse_settings: Path) -> None:
    other = dg.ResourceDefinition.hardcoded_resource("another")
    assert (build_defs(resource_overrides={"duckdb": other}).resources or {})["duckdb"] is other


def dagster(
    home: Path, *arguments: str, dagster_home: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Dagster's command in a copy of the repository's configuration."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LAKEHOUSE_", "DAGSTER_"))}
    environment |= {
        "LAKEHOUSE_HOME": str(home / "data"),
        "LAKEHOUSE_FEED": "recording:none.zst",
        "PYTHONPATH": str(ROOT),
    }
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copyfile(ROOT / name, home / name)
    command = [str(Path(sys.executable).with_name("dagster")), *arguments]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=120)


def test_dagster_validates_the_workspace_in_little_more_than_its_own_time(tmp_path: Path) -> None:
    (tmp_path / "nothing.py").write_text("import dagster as dg\n\ndefs = dg.Definitions()\n")
    own_seconds, _ = validated(tmp_path, "-f", "nothing.py")
    seconds, said = validated(tmp_path, "-w", "workspace.yaml")
    assert "All code locations passed validation" in said
    assert not (tmp_path / "data").exists()
    # The libraries of the stores are the rest: a table read or an exchange asked would be more.
    assert seconds < 4 * own_seconds


def validated(home: Path, *arguments: str) -> tuple[float, str]:
    """Validate definitions; return the seconds of computing that it took, and what was said."""
    before = os.times()
    done = dagster(home, "definitions", "validate", *arguments)
    after = os.times()
    assert done.returncode == 0, done.stderr
    return sum(after[2:4]) - sum(before[2:4]), done.stdout + done.stderr


def test_without_dagster_home_runs_are_kept_below_the_lakehouse(tmp_path: Path) -> None:
    done = dagster(
        tmp_path,
        *("asset", "materialize", "-m", "lakehouse_assets.definitions", "--select", "trades,candles_1m"),
        *("--partition", "2024-06-10|BTC-USD"),
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / ".lakehouse" / "dagster").rglob("runs.db"))
    assert not list(tmp_path.glob(".tmp_dagster_home_*"))


def test_with_dagster_home_runs_are_kept_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = (ROOT / "dagster.yaml").read_text().replace(".lakehouse/dagster", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text(ours)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setitem(os.environ, "LAKEHOUSE_FEED", "recording:none.zst")
    monkeypatch.setitem(os.environ, "LAKEHOUSE_HOME", str(tmp_path / "data"))
    with dg.DagsterInstance.get() as instance:
        job = build_defs().resolve_job_def("seal_days")
        run = job.execute_in_process(partition_key="2024-06-10|BTC-USD", instance=instance)
    with dg.DagsterInstance.get() as instance:
        assert instance.get_run_by_id(run.run_id) is not None
    assert list(tmp_path.rglob("runs.db"))


def test_the_instance_starts_few_runs_and_sends_nothing_home() -> None:
    instance = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    assert instance["telemetry"] == {"enabled": False}
    assert instance["concurrency"]["runs"]["max_concurrent_runs"] <= 4
    assert instance["concurrency"]["pools"]["default_limit"] == 1
    assert instance["run_monitoring"]["free_slots_after_run_end_seconds"] > 0
