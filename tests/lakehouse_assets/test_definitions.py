import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
import yaml

from lakehouse.stores.schemas import TABLES
from lakehouse_assets.definitions import build_defs

ROOT = Path(__file__).parents[2]


def test_definitions_can_be_loaded_and_are_fresh_each_time(lakehouse_settings: Path) -> None:
    one, other = build_defs(), build_defs()
    dg.Definitions.validate_loadable(one)
    assert one is not other
    assert {key.to_user_string() for key in one.resolve_asset_graph().get_all_asset_keys()} == {
        "trades",
        "candles_1m",
        *(f"maintenance/{name}" for name in TABLES),
    }


def test_building_them_opens_nothing(lakehouse_settings: Path) -> None:
    build_defs()
    assert not lakehouse_settings.exists()


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


def test_dagster_validates_the_workspace(tmp_path: Path) -> None:
    started = time.monotonic()
    done = dagster(tmp_path, "definitions", "validate", "-w", "workspace.yaml")
    seconds = time.monotonic() - started
    print(f"dagster definitions validate: {seconds:.1f} s")
    assert done.returncode == 0, done.stderr
    assert "All code locations passed validation" in done.stdout + done.stderr
    assert not (tmp_path / "data").exists()


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
