"""The maintenance of every table: as Dagster runs it, beside writers and readers that go on."""

import multiprocessing
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from table_rows import make_candles, make_trades

from lakehouse.home import Home
from lakehouse.stores import sql
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, GAPS, INTAKE, QUARANTINE, TABLES, TRADES, Table
from lakehouse_assets import retries
from lakehouse_assets.definitions import build_defs
from lakehouse_assets.operations import maintenance
from lakehouse_assets.operations.maintenance import maintenance_key
from lakehouse_assets.resources import Lakehouse
from streaming.engines.flink.errors import FlinkUnavailableError

DAY = date(2026, 1, 2)
BOTH = pytest.mark.parametrize("table", [TRADES, CANDLES_1M], ids=["iceberg", "paimon"])


def run_maintenance(
    defs: dg.Definitions, instance: dg.DagsterInstance, *tables: Table, orphans: bool = True
) -> dg.ExecuteInProcessResult:
    ops = {
        maintenance_key(table).to_python_identifier(): {"config": {"look_for_orphans": orphans}}
        for table in tables
    }
    return defs.resolve_job_def("maintain_tables").execute_in_process(
        instance=instance,
        run_config={"ops": ops},
        asset_selection=[maintenance_key(table) for table in tables],
        raise_on_error=False,
    )


def said(run: dg.ExecuteInProcessResult, table: Table) -> dict[str, Any]:
    (event,) = [
        event for event in run.get_asset_materialization_events() if event.asset_key == maintenance_key(table)
    ]
    return {name: value.value for name, value in event.materialization.metadata.items()}


def write(home: Home, table: Table, number: int) -> None:
    if table is TRADES:
        with IcebergStore.open(home) as iceberg:
            iceberg.append(TRADES, make_trades([number]))
    else:
        with PaimonStore.open(home) as paimon:
            paimon.upsert(CANDLES_1M, make_candles([number]))


def folder(home: Home, table: Table) -> Path:
    return (
        home.iceberg / "warehouse" / "trades"
        if table is TRADES
        else home.paimon / "simulated.db" / "candles_1m"
    )


def test_every_table_is_maintained_and_says_what_was_done(
    defs: dg.Definitions, instance: dg.DagsterInstance, tables: Lakehouse
) -> None:
    home = tables.home.create()
    with IcebergStore.open(home) as iceberg, PaimonStore.open(home) as paimon:
        for number in range(5):
            iceberg.append(TRADES, make_trades([number]))
            paimon.upsert(CANDLES_1M, make_candles([number]))
    run = run_maintenance(defs, instance, *TABLES.values())
    assert run.success
    for table in (TRADES, CANDLES_1M):
        figures = said(run, table)
        assert (figures["files_before"], figures["files_after"], figures["merged_files"]) == (5, 1, 5)
        assert 0 < figures["bytes_after"] < figures["bytes_before"] < figures["disk_bytes_before"]
        assert figures["snapshots_before"] == 5
        assert figures["orphans_removed"] == 0
        assert figures["seconds"] > 0
        assert "flink_job_id" not in figures
    assert said(run, TABLES["gaps"])["files_after"] == 0
    assert {check.passed for check in run.get_asset_check_evaluations()} == {True}
    assert len(run.get_asset_check_evaluations()) == len(TABLES) + 2 * len(RECORDS)
    assert said(run, TRADES)["dagster/row_count"] == said(run, CANDLES_1M)["dagster/row_count"] == 5
    again = run_maintenance(defs, instance, TRADES, CANDLES_1M, orphans=False)
    for table in (TRADES, CANDLES_1M):
        figures = said(again, table)
        assert (figures["merged_files"], figures["files_after"]) == (0, 1)
        assert "orphans_removed" not in figures


@BOTH
def test_what_a_killed_process_left_goes_when_it_is_old_enough(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    tables: Lakehouse,
    table: Table,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = tables.home.create()
    write(home, table, 1)
    (data,) = folder(home, table).rglob("*.parquet")
    left = data.with_name("data-left-by-a-crash-0.parquet")
    left.write_bytes(b"half")
    assert said(run_maintenance(defs, instance, table), table)["orphans_removed"] == 0
    assert left.exists()  # it may wait for its commit
    later = time.time() + timedelta(days=4).total_seconds()
    monkeypatch.setattr(time, "time", lambda: later)
    assert said(run_maintenance(defs, instance, table), table)["orphans_removed"] == 1
    assert (left.exists(), data.exists()) == (False, True)


@BOTH
def test_a_file_that_is_gone_fails_the_check_which_says_what_to_do(
    defs: dg.Definitions, instance: dg.DagsterInstance, tables: Lakehouse, table: Table
) -> None:
    home = tables.home.create()
    write(home, table, 1)
    (data,) = folder(home, table).rglob("*.parquet")
    data.unlink()
    (check,) = run_maintenance(defs, instance, table).get_asset_check_evaluations()
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.ERROR
    assert f"1 data files of {table.name} are gone" in (check.description or "")
    assert check.metadata["first_missing"].value == str(data)


RECORDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    GAPS.name: (
        {"first_trade_id": 5, "last_trade_id": 7, "status": "found", "found_by": "trade_id", "detail": ""},
        {"last_trade_id": 4},
    ),
    QUARANTINE.name: ({"reason": "not_json", "detail": "", "frame": b"{"}, {"reason": "a mood"}),
    INTAKE.name: (
        {"kind": "trade", "received": 3, "accepted": 1, "duplicates": 1, "quarantined": 1, "late": 0},
        {"received": 4},
    ),
}
"""Of each table that the stream keeps about itself a good row, and what makes no sense in its place."""


@pytest.mark.parametrize("name", RECORDS)
def test_rows_that_can_not_be_are_found_in_what_the_stream_keeps_about_itself(
    defs: dg.Definitions, instance: dg.DagsterInstance, tables: Lakehouse, name: str
) -> None:
    tables.home.create()
    table = TABLES[name]
    now = datetime(2026, 1, 2, tzinfo=UTC)
    good, change = RECORDS[name]
    at = dict.fromkeys(("noticed_at", "received_at", "recorded_at"), now)
    place = {"product": "BTC-USD", "day": DAY, "exchange": "simulated", "spine_partition": 0}

    def wrong(*rows: dict[str, Any]) -> set[str]:
        values = [at | place | {"spine_offset": 1} | good | row for row in rows]
        with tables.iceberg() as store:
            store.append(table, pa.Table.from_pylist(values, table.schema))
        run = run_maintenance(defs, instance, table, orphans=False)
        failed = [check for check in run.get_asset_check_evaluations() if not check.passed]
        for check in failed:
            assert check.severity is dg.AssetCheckSeverity.ERROR
            assert "look for another program" in (check.description or "")
        return {check.check_name for check in failed}

    # What a seal finds has no message of the log.
    assert wrong({}, {"spine_offset": -1}, {"spine_offset": -1}) == set()
    assert wrong({}) == {"no_message_twice"}
    assert wrong({"spine_offset": 2} | change) == {"no_message_twice", "rows_make_sense"}


def _write_on(home: Home, table: Table, written: Event, stop: Event) -> None:
    with IcebergStore.open(home) as iceberg, PaimonStore.open(home) as paimon:
        number = 0
        while not stop.is_set() or number < 40:
            if table.store == "iceberg":  # it was pickled: another object
                iceberg.append(TRADES, make_trades([number]), offsets={0: number + 1})
                iceberg.maintain(TRADES)
            else:
                paimon.upsert(CANDLES_1M, make_candles([number]), properties={"lakehouse.n": str(number + 1)})
                paimon.maintain(CANDLES_1M)
            number += 1
            if number == 5:
                written.set()


@pytest.fixture
def stop() -> Iterator[Event]:
    event = multiprocessing.get_context("spawn").Event()
    yield event
    event.set()


@BOTH
def test_a_writer_and_a_pinned_reader_go_on_meanwhile(
    defs: dg.Definitions, instance: dg.DagsterInstance, tables: Lakehouse, table: Table, stop: Event
) -> None:
    home = tables.home.create()
    write(home, table, 0)
    with IcebergStore.open(home) as iceberg, PaimonStore.open(home) as paimon:
        (iceberg if table is TRADES else paimon).tag(table, "narrative.of-today")
    with sql.connect(home) as reader:
        context = multiprocessing.get_context("spawn")
        written = context.Event()
        writer = context.Process(target=_write_on, args=(home, table, written, stop))
        writer.start()
        assert written.wait(60)
        merged, rounds = 0, 0
        while rounds < 4 or not merged:
            rounds += 1
            run = run_maintenance(defs, instance, table)
            assert run.success, [event.message for event in run.get_step_failure_events()]
            assert {check.passed for check in run.get_asset_check_evaluations()} == {True}
            merged += said(run, table)["merged_files"]
        stop.set()
        writer.join(60)
        assert writer.exitcode == 0
        assert reader.execute(f"SELECT count(*) FROM {table.name}").fetchone() == (1,)
    with IcebergStore.open(home) as iceberg, PaimonStore.open(home) as paimon:
        if table is TRADES:
            count = iceberg.offsets(TRADES)[0]
            # The first row was written twice: by the test and by the writer.
            assert sorted(iceberg.scan(TRADES)["trade_id"].to_pylist()) == [0, *range(count)]
            assert iceberg.scan(TRADES, snapshot_id=iceberg.tags(TRADES)["narrative.of-today"]).num_rows == 1
        else:
            count = int(paimon.properties(CANDLES_1M)["lakehouse.n"])
            assert paimon.scan(CANDLES_1M).num_rows == count
            assert paimon.scan(CANDLES_1M, tag="narrative.of-today").num_rows == 1


def test_the_schedule_asks_for_a_run_for_each_table_that_holds_something(
    defs: dg.Definitions, instance: dg.DagsterInstance, tables: Lakehouse
) -> None:
    schedule = defs.resolve_schedule_def("maintain_every_table_hourly")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING

    def asked(hour: int) -> list[dg.RunRequest]:
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=datetime(2026, 1, 2, hour, 7, tzinfo=UTC),
            resources={"lakehouse": tables},
            repository_def=defs.get_repository_def(),
        )
        return list(schedule.evaluate_tick(context).run_requests or [])

    assert asked(9) == []
    home = tables.home.create()
    for table in (TRADES, CANDLES_1M):
        write(home, table, 1)
    morning, night = asked(9), asked(3)
    assert [request.asset_selection for request in morning] == [
        [maintenance_key(TRADES)],
        [maintenance_key(CANDLES_1M)],
    ]
    assert len({request.run_key for request in (*morning, *night)}) == 4
    for requests, orphans in ((morning, False), (night, True)):
        configs = [next(iter(request.run_config["ops"].values()))["config"] for request in requests]
        assert configs == [{"look_for_orphans": orphans}] * 2
    request = morning[0]
    run = defs.resolve_job_def("maintain_tables").execute_in_process(
        instance=instance, run_config=request.run_config, asset_selection=request.asset_selection
    )
    assert said(run, TRADES)["files_after"] == 1


def test_a_run_waits_for_the_writer_of_its_own_table_only(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    for name in ("trades", "candles_1m"):
        assert graph.get(maintenance_key(TABLES[name])).pools == graph.get(dg.AssetKey(name)).pools
    pools = [next(iter(graph.get(maintenance_key(table)).pools)) for table in TABLES.values()]
    assert len(set(pools)) == len(TABLES)


def test_while_flink_is_away_it_is_tried_again(
    lakehouse_settings: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_arguments: object, **_options: object) -> None:
        raise FlinkUnavailableError("Flink's SQL gateway doesn't answer: start `lakehouse cluster up`")

    monkeypatch.setattr(maintenance, "maintain", away)
    monkeypatch.setattr(retries, "FIRST_WAIT_SECONDS", 0)
    run = run_maintenance(build_defs(), instance, CANDLES_1M)
    assert not run.success
    restarts = [event for event in run.all_events if event.is_step_restarted]
    assert len(restarts) == retries.RETRIES
