"""The asset on real tables: each class of break provoked and found, and what Dagster shows of it."""

import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.types import StringType
from sealed_world import BTC, DAY, KEY, LIVE_KEY, PRODUCTS

from lakehouse.home import Home
from lakehouse.reconciliation.schema_drift import schema_breaks
from lakehouse.stores.catalog_columns import registered_columns, table_columns
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.iceberg_catalog import open_catalog
from lakehouse.stores.schemas import (
    CANDLES_1D,
    CANDLES_1H,
    CANDLES_1M,
    GAPS,
    INTAKE,
    RECONCILIATION,
    TABLES,
    TRADES,
    Table,
)
from lakehouse_assets.definitions import build_defs
from lakehouse_assets.operations.reconciliation_checks import BREAK_CHECKS
from lakehouse_assets.partitions import product_day_key
from lakehouse_assets.resources import Lakehouse

Materialize = Callable[..., dg.ExecuteInProcessResult]
Reconcile = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture(scope="session")
def sealed_home(exchange: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two sealed days and their candles; tests get copies."""
    root = tmp_path_factory.mktemp("sealed") / "home"
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("LAKEHOUSE_HOME", str(root))
        patch.setenv("LAKEHOUSE_FEED", "simulated")
        patch.setenv("LAKEHOUSE_PRODUCTS", ",".join(PRODUCTS))
        patch.setenv("LAKEHOUSE_SIMULATED_REST_PORT", exchange.rest_url.rpartition(":")[2])
        graph = build_defs().resolve_implicit_global_asset_job_def()
        made = [
            dg.AssetKey(name) for name in (TRADES.name, CANDLES_1M.name, CANDLES_1H.name, CANDLES_1D.name)
        ]
        for day in (DAY - timedelta(days=1), DAY):
            key = product_day_key(BTC, day)
            assert (
                graph.get_subset(asset_selection=set(made))
                .execute_in_process(partition_key=key, instance=instance)
                .success
            )
    return root


@pytest.fixture
def lakehouse_settings(sealed_home: Path, exchange: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sealed home at the place where its tables say that their files are, as it was sealed."""
    spare = sealed_home.with_name("untouched")
    if not spare.exists():
        shutil.copytree(sealed_home, spare)
    shutil.rmtree(sealed_home)
    shutil.copytree(spare, sealed_home)
    monkeypatch.setenv("LAKEHOUSE_HOME", str(sealed_home))
    monkeypatch.setenv("LAKEHOUSE_FEED", "simulated")
    monkeypatch.setenv("LAKEHOUSE_PRODUCTS", ",".join(PRODUCTS))
    monkeypatch.setenv("LAKEHOUSE_SIMULATED_REST_PORT", exchange.rest_url.rpartition(":")[2])
    return sealed_home


@pytest.fixture
def reconcile(defs: dg.Definitions, instance: dg.DagsterInstance) -> Reconcile:
    """Return a function that reconciles a partition, or the range of the tags."""

    def run(**how: Any) -> dg.ExecuteInProcessResult:
        job = defs.resolve_job_def("reconcile_days")
        return job.execute_in_process(
            instance=instance, raise_on_error=False, **(how or {"partition_key": KEY})
        )

    return run


def breaks(tables: Lakehouse) -> list[dict[str, Any]]:
    with IcebergStore.open(tables.home, [RECONCILIATION]) as store:
        return store.scan(RECONCILIATION).to_pylist()  # type: ignore[no-any-return]


def shown(tables: Lakehouse) -> set[tuple[str, str, str, str, str]]:
    names = ("comparison", "kind", "table_name", "row_key", "column_name")
    return {tuple(row[name] for name in names) for row in breaks(tables)}  # type: ignore[misc]


def failed(run: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {one.check_name: one for one in run.get_asset_check_evaluations() if not one.passed}


def candle_rows(tables: Lakehouse) -> list[dict[str, Any]]:
    with tables.paimon() as store:
        return store.scan(CANDLES_1M, product=BTC, day=DAY).to_pylist()  # type: ignore[no-any-return]


def set_candles(tables: Lakehouse, rows: list[dict[str, Any]]) -> None:
    with tables.paimon() as store:
        store.replace(CANDLES_1M, BTC, DAY, pa.Table.from_pylist(rows, CANDLES_1M.schema))


def key_of(candle: dict[str, Any]) -> str:
    return str(candle["start"].strftime("%Y-%m-%dT%H:%M:%S.%fZ"))


def test_a_day_whose_accounts_agree_has_no_break_and_passes_every_check(
    tables: Lakehouse, reconcile: Reconcile
) -> None:
    run = reconcile()
    assert run.success
    evaluations = run.get_asset_check_evaluations()
    assert {one.check_name for one in evaluations} == {check.name for check in BREAK_CHECKS}
    assert {one.partition for one in evaluations} == {KEY}
    assert failed(run) == {}
    assert breaks(tables) == []
    (event,) = run.get_asset_materialization_events()
    metadata = {name: value.value for name, value in event.materialization.metadata.items()}
    assert metadata["sealed"] is True
    assert metadata["dagster/partition_row_count"] == 0
    assert str(metadata["breaks_by_day"]).startswith("![plot](data:image/png;base64,")


def test_a_missing_candle_is_found(tables: Lakehouse, reconcile: Reconcile) -> None:
    rows = candle_rows(tables)
    set_candles(tables, rows[:4] + rows[5:])
    run = reconcile()
    assert not run.success  # it blocks
    assert shown(tables) == {
        ("archive_candles", "MISSING", "candles_1m", key_of(rows[4]), ""),
        ("candles_exchange", "MISSING", "candles_1m", key_of(rows[4]), ""),
    } | {row for row in shown(tables) if row[0].startswith("minutes_")}
    found = failed(run)
    assert {"archive_candles_missing", "candles_exchange_missing"} <= found.keys()
    assert "minutes_days_value_drift" in found
    assert found["archive_candles_missing"].severity is dg.AssetCheckSeverity.ERROR
    assert found["candles_exchange_missing"].severity is dg.AssetCheckSeverity.WARN
    assert "Materialize `candles_1m`" in (found["archive_candles_missing"].description or "")


def test_a_candle_twice_is_found(tables: Lakehouse, reconcile: Reconcile) -> None:
    files = {
        path: pq.ParquetFile(path).read() for path in tables.home.paimon.rglob("*candles_1m/**/*.parquet")
    }
    ((path, rows),) = [item for item in files.items() if item[1]["day"][0].as_py() == DAY]
    key = key_of(candle_rows(tables)[3])
    pq.write_table(pa.concat_tables([rows, rows.slice(3, 1)]), path)
    assert not reconcile().success
    assert ("archive_candles", "DUPLICATE", "candles_1m", key, "") in shown(tables)
    assert {kind for _, kind, *_ in shown(tables)} == {"DUPLICATE"}


def test_a_trade_twice_is_found(tables: Lakehouse, reconcile: Reconcile) -> None:
    with tables.iceberg() as store:
        one = store.scan(TRADES, product=BTC, day=DAY).slice(7, 1)
        store.append(TRADES, one)
    run = reconcile()
    trade_id = str(one["trade_id"][0].as_py())
    assert shown(tables) == {("seal_archive", "DUPLICATE", "trades", trade_id, "")}
    assert set(failed(run)) == {"seal_archive_duplicate"}


def test_a_value_that_drifted_is_found_with_its_amount(tables: Lakehouse, reconcile: Reconcile) -> None:
    rows = candle_rows(tables)
    amount = Decimal("-0.00000001")
    set_candles(tables, [row | {"close": row["close"] + amount} if row is rows[2] else row for row in rows])
    run = reconcile()
    assert shown(tables) == {
        ("archive_candles", "VALUE_DRIFT", "candles_1m", key_of(rows[2]), "close"),
        ("candles_exchange", "VALUE_DRIFT", "candles_1m", key_of(rows[2]), "close"),
    }
    assert {row["amount"] for row in breaks(tables)} == {amount}
    (row, _) = breaks(tables)
    assert Decimal(row["found"]) - Decimal(row["expected"]) == amount
    assert set(failed(run)) == {"archive_candles_value_drift", "candles_exchange_value_drift"}
    (record,) = failed(run)["archive_candles_value_drift"].metadata["first_findings"].records  # type: ignore[union-attr]
    assert record.data["column_name"] == "close"


@pytest.mark.parametrize(
    ("table", "comparison"), [(CANDLES_1H, "minutes_hours"), (CANDLES_1D, "minutes_days")]
)
def test_longer_candles_that_are_not_their_minutes_are_found(
    tables: Lakehouse, reconcile: Reconcile, table: Table, comparison: str
) -> None:
    with tables.paimon() as store:
        rows = store.scan(table, product=BTC, day=DAY).to_pylist()
        rows[-1] |= {"volume": rows[-1]["volume"] + 2, "is_complete": not rows[-1]["is_complete"]}
        store.replace(table, BTC, DAY, pa.Table.from_pylist(rows, table.schema))
    run = reconcile()
    key = key_of(rows[-1])
    assert shown(tables) == {
        (comparison, "VALUE_DRIFT", table.name, key, column) for column in ("volume", "is_complete")
    }
    assert {row["amount"] for row in breaks(tables)} == {Decimal(2), None}
    assert set(failed(run)) == {f"{comparison}_value_drift"}


def test_a_trade_that_was_archived_and_is_gone_is_found(tables: Lakehouse, reconcile: Reconcile) -> None:
    with tables.iceberg() as store:
        rows = store.scan(TRADES, product=BTC, day=DAY).sort_by("trade_id")
        store.replace(TRADES, BTC, DAY, pa.concat_tables([rows.slice(0, 5), rows.slice(7)]))
    first, last = rows["trade_id"][5].as_py(), rows["trade_id"][6].as_py()
    run = reconcile()
    assert ("seal_archive", "MISSING", "trades", f"{first}-{last}", "") in shown(tables)
    assert {"seal_archive_missing", "archive_candles_value_drift"} <= failed(run).keys()
    assert not any(name.startswith("candles_exchange") for name in failed(run))


def test_counts_of_the_log_that_do_not_add_up_are_found_and_block_nothing(
    tables: Lakehouse, reconcile: Reconcile
) -> None:
    at = {"recorded_at": datetime(2025, 6, 10, tzinfo=UTC), "spine_partition": 0, "spine_offset": 0}
    row = {"product": BTC, "day": DAY, "kind": "trade", "exchange": "simulated", "received": 3} | at
    row |= {"accepted": 3, "duplicates": 0, "quarantined": 0, "late": 0}
    with tables.iceberg() as store:
        store.append(INTAKE, pa.Table.from_pylist([row], INTAKE.schema))
    run = reconcile()
    assert run.success
    (found,) = breaks(tables)
    assert (found["comparison"], found["kind"], found["amount"]) == ("log_archive", "MISSING", Decimal(-3))
    assert failed(run)["log_archive_missing"].severity is dg.AssetCheckSeverity.ERROR


@pytest.mark.parametrize("change", ["foreign column", "other type", "optional"])
def test_a_schema_that_drifted_is_found_though_the_store_refuses_the_table(
    tables: Lakehouse, reconcile: Reconcile, change: str
) -> None:
    with closing(open_catalog(tables.home)) as catalog:
        table = catalog.load_table((tables.home.namespace, GAPS.name))
        with table.update_schema(allow_incompatible_changes=True) as update:
            if change == "foreign column":
                update.add_column("note", StringType())
            elif change == "optional":
                update.make_column_optional("detail")
            else:
                update.delete_column("detail")
    run = reconcile()
    assert not run.success
    column = "note" if change == "foreign column" else "detail"
    assert shown(tables) == {("schema", "SCHEMA_DRIFT", "gaps", "", column)}
    assert set(failed(run)) == {"schema_drift"}
    assert [one.check_name for one in run.get_asset_check_evaluations()] == ["schema_drift"]
    (row,) = breaks(tables)
    assert (row["expected"], row["found"]) == {
        "foreign column": ("", "string"),
        "other type": ("string NOT NULL", ""),
        "optional": ("string NOT NULL", "string"),
    }[change]


def test_columns_in_another_order_are_no_drift(tables: Lakehouse, reconcile: Reconcile) -> None:
    assert reconcile().success
    there = {columns.table.name: columns for columns in table_columns(tables.home)}
    assert there.keys() == TABLES.keys()
    for name, columns in there.items():
        backwards = dict(reversed(registered_columns(TABLES[name]).items()))
        assert schema_breaks(DAY, name, backwards, columns.found) == []


def test_reconciling_again_changes_nothing_and_a_repaired_day_has_no_breaks_left(
    tables: Lakehouse, reconcile: Reconcile
) -> None:
    rows = candle_rows(tables)
    set_candles(tables, rows[1:])
    reconcile()
    before = breaks(tables)
    with tables.iceberg() as store:
        snapshot = store.snapshot_id(RECONCILIATION)
    reconcile()
    assert breaks(tables) == before
    with tables.iceberg() as store:
        assert store.snapshot_id(RECONCILIATION) == snapshot
    set_candles(tables, rows)
    assert reconcile().success
    assert breaks(tables) == []


def test_a_day_that_is_not_sealed_is_left_out_and_no_check_speaks_for_it(
    tables: Lakehouse, reconcile: Reconcile
) -> None:
    run = reconcile(partition_key=LIVE_KEY)
    assert run.success
    assert run.get_asset_check_evaluations() == []
    (event,) = run.get_asset_materialization_events()
    assert event.materialization.metadata["sealed"].value is False


def test_many_days_in_one_run_have_each_their_own_result(tables: Lakehouse, reconcile: Reconcile) -> None:
    rows = candle_rows(tables)
    set_candles(tables, rows[1:])
    before = product_day_key(BTC, DAY - timedelta(days=1))
    run = reconcile(
        tags={"dagster/asset_partition_range_start": before, "dagster/asset_partition_range_end": LIVE_KEY}
    )
    counts = {
        event.materialization.partition: event.materialization.metadata["dagster/partition_row_count"].value
        for event in run.get_asset_materialization_events()
    }
    assert counts.keys() == {before, KEY, LIVE_KEY}
    assert counts[before] == counts[LIVE_KEY] == 0
    assert counts[KEY] > 1
    by_partition = {one.partition for one in run.get_asset_check_evaluations() if not one.passed}
    assert by_partition == {KEY}


def test_a_recording_is_not_compared_with_an_exchange(
    sealed_home: Path, lakehouse_settings: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(sealed_home, "simulated")
    with_recording = Lakehouse(
        root=str(home.root), namespace="simulated", feed="recording:x.zst", lateness_minutes=10
    )
    defs = build_defs(resource_overrides={"lakehouse": with_recording})
    run = defs.resolve_job_def("reconcile_days").execute_in_process(partition_key=KEY, instance=instance)
    assert not any("exchange" in one.check_name for one in run.get_asset_check_evaluations())


def test_every_check_says_what_to_do_and_blocks_on_purpose() -> None:
    assert len({check.name for check in BREAK_CHECKS}) == len(BREAK_CHECKS)
    open_to_all = {check.comparison for check in BREAK_CHECKS if not check.blocking}
    assert open_to_all == {"candles_exchange", "log_archive"}
