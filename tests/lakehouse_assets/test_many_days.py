"""Runs over many product-days: each has results of its own, and what fails stops no other."""

from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from sealed_world import BTC, DAY

from lakehouse.stores.schemas import CANDLES_1M, PRICE, TRADES
from lakehouse_assets.definitions import build_defs
from lakehouse_assets.partitions import batches, product_day_key
from lakehouse_assets.resources import Lakehouse

DAYS = [DAY - timedelta(days=back) for back in (3, 2, 1, 0)]
KEYS = [product_day_key(BTC, day) for day in DAYS]

Run = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def run(defs: dg.Definitions, instance: dg.DagsterInstance) -> Run:
    """Return a function that materializes assets for all KEYS in one run, as a backfill of a range does."""
    tags = {
        "dagster/asset_partition_range_start": KEYS[0],
        "dagster/asset_partition_range_end": KEYS[-1],
    }

    def started(*assets: str) -> dg.ExecuteInProcessResult:
        return defs.resolve_job_def("seal_days").execute_in_process(
            instance=instance,
            tags=tags,
            raise_on_error=False,
            asset_selection=[dg.AssetKey(name) for name in assets] or None,
        )

    return started


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str | None, dict[str, Any]]:
    return {
        event.materialization.partition: {k: v.value for k, v in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey(asset)
    }


def failed(result: dg.ExecuteInProcessResult) -> set[tuple[str | None, str]]:
    return {
        (check.partition, check.check_name)
        for check in result.get_asset_check_evaluations()
        if not check.passed
    }


def rows(tables: Lakehouse) -> dict[str, int]:
    with tables.iceberg() as store:
        return {product_day_key(str(s.product), s.day): s.rows for s in store.partitions(TRADES)}


def test_days_are_sealed_and_their_candles_built_in_one_run_and_one_commit(
    tables: Lakehouse, run: Run
) -> None:
    result = run()
    assert result.success
    assert failed(result) == set()
    assert len(result.get_asset_check_evaluations()) == 9 * len(KEYS)
    sealed, built = metadata(result, "trades"), metadata(result, "candles_1m")
    assert {key: said["dagster/partition_row_count"] for key, said in sealed.items()} == rows(tables)
    assert set(rows(tables)) == set(KEYS)
    with tables.paimon() as candles:
        assert candles.snapshot_id(CANDLES_1M) == 1
        for key, day in zip(KEYS, DAYS, strict=True):
            there = candles.scan(CANDLES_1M, product=BTC, day=day)
            assert built[key]["dagster/partition_row_count"] == there.num_rows > 0
            assert sum(there["trade_count"].to_pylist()) == rows(tables)[key]
    again = metadata(run(), "candles_1m")
    assert [again[key]["changed"] for key in KEYS] == [False] * len(KEYS)


def test_only_the_days_that_differ_are_written(tables: Lakehouse, run: Run) -> None:
    run()
    with tables.paimon() as candles:
        for day in DAYS[1:3]:
            candles.replace(
                CANDLES_1M, BTC, day, candles.scan(CANDLES_1M, product=BTC, day=day).slice(day.day % 2 + 1)
            )
        before = candles.snapshot_id(CANDLES_1M)
        assert before is not None
    said = metadata(run("candles_1m"), "candles_1m")
    assert [said[key]["changed"] for key in KEYS] == [False, True, True, False]
    with tables.paimon() as candles:
        assert candles.snapshot_id(CANDLES_1M) == before + 1


def test_a_day_that_can_not_be_built_fails_and_the_others_are(tables: Lakehouse, run: Run) -> None:
    run("trades")
    with tables.iceberg() as store:
        damaged = store.scan(TRADES, product=BTC, day=DAYS[1])
        prices = pa.array([Decimal(-1)] * damaged.num_rows, PRICE)
        position = TRADES.schema.get_field_index("price")
        store.replace(
            TRADES, BTC, DAYS[1], damaged.set_column(position, TRADES.schema.field("price"), prices)
        )
    result = run("candles_1m")
    assert not result.success
    good = set(KEYS) - {KEYS[1]}
    (failure,) = result.get_step_failure_events()
    error = failure.step_failure_data.error
    assert error is not None
    assert f"{KEYS[1]}: " in error.message
    assert set(metadata(result, "candles_1m")) == good
    assert {check.partition for check in result.get_asset_check_evaluations()} == good
    assert failed(result) == set()
    with tables.paimon() as candles:
        built = {product_day_key(stats.product, stats.day) for stats in candles.partitions(CANDLES_1M)}
    assert built == good


def test_a_trade_archived_twice_fails_the_checks_of_its_day_only(tables: Lakehouse, run: Run) -> None:
    run("trades")
    with tables.iceberg() as store:
        store.append(TRADES, store.scan(TRADES, product=BTC, day=DAYS[2]).slice(0, 1))
    result = run("candles_1m")
    assert {key for key, _ in failed(result)} <= {KEYS[2]}
    again = run("trades")
    assert {key for key, _ in failed(again)} == {KEYS[2]}
    assert set(metadata(again, "trades")) == set(KEYS)


def test_another_product_needs_only_the_setting(
    lakehouse_settings: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    monkeypatch.setenv("LAKEHOUSE_PRODUCTS", "BTC-USD,ETH-USD,SOL-USD")
    key = product_day_key("SOL-USD", DAY)
    graph = build_defs().resolve_asset_graph()
    partitioned = [graph.get(one).partitions_def for one in graph.get_all_asset_keys()]
    of_product_days = [one for one in partitioned if one is not None]
    assert len(of_product_days) > 2
    assert all(one.has_partition_key(key) for one in of_product_days)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([1, 1, 1, 1], [4]),
        ([5, 5, 1, 5], [2, 2]),
        ([20, 1, 1, 20], [1, 2, 1]),
        ([1] * 12, [8, 4]),
    ],
)
def test_batches_are_bounded_by_size_and_by_length(sizes: list[int], expected: list[int]) -> None:
    days = [date(2025, 1, 1) + timedelta(days=number) for number in range(len(sizes))]
    of = {(BTC, day): size for day, size in zip(days, sizes, strict=True)}
    keys = [product_day_key(BTC, day) for day in reversed(days)]
    made = list(batches(keys, of, most=10, most_keys=8))
    assert [len(batch) for batch in made] == expected
    assert [key for batch in made for key in batch] == sorted(keys)


def test_a_batch_holds_one_product() -> None:
    keys = [product_day_key(name, DAY) for name in ("A-USD", "BTC-USD", "BTC-USD")]
    assert [len(batch) for batch in batches(dict.fromkeys(keys), {}, most=9, most_keys=9)] == [1, 1]
