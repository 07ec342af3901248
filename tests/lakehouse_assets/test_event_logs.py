"""Dagster's event logs, kept open: events of many runs, threads, instances and processes, and none lost."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
import yaml

from lakehouse_assets.dagster_storage import MOST_OPEN

SUCCESS = dg.DagsterEventType.RUN_SUCCESS.value
DAYS = dg.StaticPartitionsDefinition([f"day {number}" for number in range(20)])


@dg.asset(partitions_def=DAYS, check_specs=[dg.AssetCheckSpec("fine", asset="rows")])
def rows(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
    yield dg.MaterializeResult(
        metadata={"dagster/partition_row_count": 1},
        check_results=[dg.AssetCheckResult(check_name="fine", passed=True)],
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    local = yaml.safe_load((Path(__file__).parents[2] / "dagster.yaml").read_text())
    ours = yaml.safe_dump(local).replace(".lakehouse/dagster", str(tmp_path / "dagster"))
    (tmp_path / "dagster.yaml").write_text(ours)
    return tmp_path


@pytest.fixture
def instance(folder: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(folder)) as opened:
        yield opened


def materialize(instance: dg.DagsterInstance, day: str) -> str:
    return dg.materialize([rows], partition_key=day, instance=instance).run_id


def days(instance: dg.DagsterInstance) -> list[str | None]:
    """Return the days materialized, in the order of the index."""
    found = instance.fetch_materializations(rows.key, limit=1_000, ascending=True).records
    return [record.partition_key for record in found]


def kinds(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [
        entry.dagster_event.event_type_value for entry in instance.all_logs(run_id) if entry.dagster_event
    ]


def test_more_runs_than_stay_open_are_all_written_and_read(instance: dg.DagsterInstance) -> None:
    wanted = [f"day {number}" for number in range(MOST_OPEN + 4)]
    runs = [materialize(instance, day) for day in wanted]
    assert days(instance) == wanted
    for run_id in runs:
        found = kinds(instance, run_id)
        assert found.count("ASSET_MATERIALIZATION") == found.count("ASSET_CHECK_EVALUATION") == 1
        assert SUCCESS in found


def test_another_instance_and_another_process_see_and_write_the_same(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    materialize(instance, "day 1")
    with dg.DagsterInstance.from_config(str(folder)) as other:
        assert days(other) == ["day 1"]
        materialize(other, "day 2")
        materialize(instance, "day 3")
        assert days(other) == days(instance) == ["day 1", "day 2", "day 3"]
        code = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "import dagster as dg; from test_event_logs import materialize\n"
            f"with dg.DagsterInstance.from_config({str(folder)!r}) as other: materialize(other, 'day 4')"
        )
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
        assert days(other) == days(instance) == ["day 1", "day 2", "day 3", "day 4"]


def test_threads_of_one_instance_lose_nothing(instance: dg.DagsterInstance) -> None:
    def report(thread: int) -> None:
        for number in range(25):
            event = dg.AssetMaterialization(rows.key, partition=f"{thread}.{number}")
            instance.report_runless_asset_event(event)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(report, range(4)))
    assert len(set(days(instance))) == len(days(instance)) == 100


def test_what_is_wiped_or_deleted_is_gone_and_can_be_written_again(instance: dg.DagsterInstance) -> None:
    kept, deleted = materialize(instance, "day 1"), materialize(instance, "day 2")
    instance.delete_run(deleted)
    assert not kinds(instance, deleted)
    assert SUCCESS in kinds(instance, kept)
    instance.wipe()
    assert not days(instance)
    assert not kinds(instance, kept)
    run_id = materialize(instance, "day 3")
    assert days(instance) == ["day 3"]
    assert SUCCESS in kinds(instance, run_id)


def test_an_event_refused_by_the_index_leaves_the_log_usable(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    materialize(instance, "day 1")
    [index] = folder.rglob("index.db")
    with sqlite3.connect(index) as beside:
        beside.execute("ALTER TABLE event_logs RENAME TO away")
    with pytest.raises(Exception, match="no such table: event_logs"):
        materialize(instance, "day 2")
    with sqlite3.connect(index) as beside:
        beside.execute("ALTER TABLE away RENAME TO event_logs")
    beside.close()
    materialize(instance, "day 3")
    assert days(instance) == ["day 1", "day 3"]


def test_a_watcher_is_told_of_each_event(instance: dg.DagsterInstance) -> None:
    told: list[str] = []
    ended = threading.Event()

    def tell(entry: dg.EventLogEntry, _cursor: str) -> None:
        told.append(entry.get_dagster_event().event_type_value)
        if told[-1] == dg.DagsterEventType.RUN_FAILURE.value:
            ended.set()

    @dg.job
    def nothing() -> None:
        pass

    run = instance.create_run_for_job(nothing)
    instance.watch_event_logs(run.run_id, None, tell)
    instance.report_engine_event("it begins", run)
    instance.report_run_failed(run)
    assert ended.wait(30)
    instance.end_watch_event_logs(run.run_id, tell)
    assert told == [dg.DagsterEventType.ENGINE_EVENT.value, dg.DagsterEventType.RUN_FAILURE.value]


def test_closed_files_are_opened_again_by_whoever_asks(instance: dg.DagsterInstance) -> None:
    materialize(instance, "day 1")
    instance.event_log_storage.dispose()
    assert days(instance) == ["day 1"]


def test_every_file_is_waited_for_as_long_as_dagster_waits_for_its_events(
    instance: dg.DagsterInstance,
) -> None:
    stores = (
        instance.run_storage.connect(),  # type: ignore[attr-defined]
        instance.schedule_storage.connect(),  # type: ignore[attr-defined]
        instance.event_log_storage.index_connection(),  # type: ignore[attr-defined]
    )
    for opened in stores:
        with opened as connection:
            assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000
