"""Days of which only the exchange's own candles are had, from its REST server down to the metrics."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from sealed_world import BTC, DAY, KEY, LIVE_KEY

from lakehouse.market.time import DAY_US, day_start_us
from lakehouse.stores import sql
from lakehouse.stores.schemas import (
    CANDLES_1D,
    CANDLES_1H,
    CANDLES_1M,
    EXCHANGE_CANDLES,
    METRICS_DAILY,
    NOT_TOLD,
    RECONCILIATION,
    TRADES,
)
from lakehouse_assets.market.checks import CANDLE_CHECKS, evaluate, scopes
from lakehouse_assets.partitions import product_day_key
from lakehouse_assets.resources import Lakehouse
from streaming.exchanges.coinbase.rest import CoinbaseRest
from streaming.exchanges.contract import OwnCandle

OLDER = product_day_key(BTC, DAY - timedelta(days=1))
DOWNSTREAM = ("candles_1m", "candles_1h", "candles_1d", "metrics_daily")

Run = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def run(defs: dg.Definitions, instance: dg.DagsterInstance) -> Run:
    """Return a function that materializes assets for a partition key, one after the other in one run."""
    job = defs.resolve_implicit_global_asset_job_def()

    def materialize(key: str, *assets: str, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
        return job.get_subset(asset_selection={dg.AssetKey(name) for name in assets}).execute_in_process(
            partition_key=key, instance=instance, raise_on_error=raise_on_error
        )

    return materialize


def told(tables: Lakehouse) -> list[OwnCandle]:
    """What the exchange says when it is asked now."""

    async def ask() -> list[OwnCandle]:
        async with tables.origin() as origin:
            assert origin is not None
            start_us = day_start_us(DAY)
            return list(await origin.rest.candles(BTC, start_us, start_us + DAY_US))

    return asyncio.run(ask())


def rows_of(tables: Lakehouse, table: Any) -> list[dict[str, Any]]:
    with tables.iceberg() as store, tables.paimon() as candles:
        found = (
            store.scan(table, product=BTC) if table.store == "iceberg" else candles.scan(table, product=BTC)
        )
        return found.sort_by("start" if "start" in table.schema.names else "day").to_pylist()


def said(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(asset.replace("/", "__"))
    return {name: value.value for name, value in event.metadata.items()}


def failed(result: dg.ExecuteInProcessResult) -> set[str]:
    return {check.check_name for check in result.get_asset_check_evaluations() if not check.passed}


def test_a_day_without_trades_becomes_what_the_exchange_says_and_says_so(tables: Lakehouse, run: Run) -> None:
    result = run(KEY, "exchange_candles", *DOWNSTREAM)
    assert failed(result) == set()
    expected = told(tables)
    kept = rows_of(tables, EXCHANGE_CANDLES)
    assert [(row["open"], row["high"], row["low"], row["close"], row["volume"]) for row in kept] == [
        candle[1:] for candle in expected
    ]
    assert len(kept) > 100
    unknown = dict.fromkeys(NOT_TOLD) | {"is_complete": False, "revision": 0, "source": "exchange"}
    assert rows_of(tables, CANDLES_1M) == [row | unknown for row in kept]
    assert said(result, "candles_1m")["minutes_from_exchange"] == len(kept)
    assert said(result, "candles_1m")["sealed"] is False
    hours, (day,) = rows_of(tables, CANDLES_1H), rows_of(tables, CANDLES_1D)
    assert {row["source"] for row in (*hours, day)} == {"exchange"}
    assert [day[name] for name in NOT_TOLD] == [None] * len(NOT_TOLD)
    assert (day["open"], day["close"]) == (kept[0]["open"], kept[-1]["close"])
    assert day["volume"] == sum(row["volume"] for row in kept) == sum(row["volume"] for row in hours)
    (metrics,) = rows_of(tables, METRICS_DAILY)
    assert metrics["close"] == day["close"]
    empty = ("vwap", "quote_volume", "trade_count", "realised_volatility")
    assert [metrics[name] for name in empty] == [None] * len(empty)
    assert metrics["is_complete"] is False


def test_fetching_twice_is_fetching_once(tables: Lakehouse, run: Run) -> None:
    run(KEY, "exchange_candles", "candles_1m")
    before = rows_of(tables, EXCHANGE_CANDLES), rows_of(tables, CANDLES_1M)
    result = run(KEY, "exchange_candles", "candles_1m")
    assert not said(result, "exchange_candles")["changed"]
    assert not said(result, "candles_1m")["changed"]
    assert (rows_of(tables, EXCHANGE_CANDLES), rows_of(tables, CANDLES_1M)) == before


def test_what_the_exchange_has_corrected_is_replaced_and_the_rest_keeps_its_time(
    tables: Lakehouse, run: Run
) -> None:
    run(KEY, "exchange_candles")
    right = rows_of(tables, EXCHANGE_CANDLES)
    wrong = [row | {"volume": row["volume"] + 1} if row is right[3] else row for row in right]
    with tables.iceberg() as store:
        store.replace(EXCHANGE_CANDLES, BTC, DAY, pa.Table.from_pylist(wrong[:-1], EXCHANGE_CANDLES.schema))
    assert said(run(KEY, "exchange_candles"), "exchange_candles")["changed"]
    found = rows_of(tables, EXCHANGE_CANDLES)
    fetched_again = {3, len(right) - 1}
    for number, (row, first) in enumerate(zip(found, right, strict=True)):
        assert row | {"recorded_at": None} == first | {"recorded_at": None}
        assert (row["recorded_at"] > first["recorded_at"]) is (number in fetched_again)


def test_trades_win_and_their_day_has_no_candle_of_the_exchange_left(tables: Lakehouse, run: Run) -> None:
    run(KEY, "exchange_candles", *DOWNSTREAM)
    result = run(KEY, "trades", *DOWNSTREAM)
    assert failed(result) == set()
    exact = rows_of(tables, CANDLES_1M)
    assert {row["source"] for row in exact} == {"trades"}
    assert said(result, "candles_1m")["minutes_from_exchange"] == 0
    assert all(row[name] is not None for row in exact for name in NOT_TOLD)
    (day,), (metrics,) = rows_of(tables, CANDLES_1D), rows_of(tables, METRICS_DAILY)
    assert (day["source"], day["is_complete"]) == ("trades", True)
    assert metrics["vwap"] is not None
    assert metrics["realised_volatility"] is not None
    # What was fetched stays where it is, and changes nothing any more.
    assert not said(run(KEY, "exchange_candles", "candles_1m"), "candles_1m")["changed"]
    assert rows_of(tables, CANDLES_1M) == exact


def test_a_candle_that_is_not_the_exchanges_fails_its_check(tables: Lakehouse, run: Run) -> None:
    run(KEY, "exchange_candles", "candles_1m")
    whole = rows_of(tables, CANDLES_1M)
    damages: dict[str, Any] = {
        "another price": [row | {"open": row["high"], "volume": row["volume"] + 1} for row in whole[:1]]
        + whole[1:],
        "one is missing": whole[1:],
        "a sum that nobody told": [whole[0] | {"trade_count": 7}, *whole[1:]],
        "not what it is from": [whole[0] | {"source": "trades"}, *whole[1:]],
    }
    for damage, rows in damages.items():
        with tables.paimon() as store:
            store.replace(CANDLES_1M, BTC, DAY, pa.Table.from_pylist(rows, CANDLES_1M.schema))
        assert "candles_equal_trades" in checks_of_candles(tables), damage


def checks_of_candles(tables: Lakehouse) -> set[str]:
    with tables.iceberg() as store:
        scope = scopes(store, [(BTC, DAY)], tables.lateness_minutes)
    with closing(sql.connect(tables.home)) as connection:
        found = evaluate(CANDLE_CHECKS, connection, scope)[BTC, DAY]
    return {str(result.check_name) for result in found if not result.passed}


def test_a_candle_of_the_exchange_among_those_of_trades_is_found(tables: Lakehouse, run: Run) -> None:
    run(KEY, "trades", "exchange_candles", "candles_1m")
    assert checks_of_candles(tables) == set()
    with tables.paimon() as store:
        rows = store.scan(CANDLES_1M, product=BTC, day=DAY).to_pylist()
        rows[5] |= dict.fromkeys(NOT_TOLD) | {"source": "exchange", "is_complete": False}
        store.replace(CANDLES_1M, BTC, DAY, pa.Table.from_pylist(rows, CANDLES_1M.schema))
    assert checks_of_candles(tables) == {"candles_equal_trades", "volumes_equal_trades"}
    with tables.paimon() as store:
        rows[5] |= {"source": "trades"}
        store.replace(CANDLES_1M, BTC, DAY, pa.Table.from_pylist(rows, CANDLES_1M.schema))
    assert "no_empty_candle_values" in checks_of_candles(tables)


def test_a_day_that_is_not_over_is_refused_with_a_sentence(tables: Lakehouse, run: Run) -> None:
    result = run(LIVE_KEY, "exchange_candles", raise_on_error=False)
    assert not result.success
    (failure,) = result.get_step_failure_events()
    error = failure.step_failure_data.error
    assert error is not None
    assert "isn't over: event time has come to 2025-06-11T0" in error.message
    assert "candles of the whole day can be had from 2025-06-12T0" in error.message
    assert rows_of(tables, EXCHANGE_CANDLES) == []


def test_candles_that_the_exchange_has_no_more_stay(
    tables: Lakehouse, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(KEY, "exchange_candles")
    before = rows_of(tables, EXCHANGE_CANDLES)

    async def nothing(*_: object) -> list[OwnCandle]:
        return []

    monkeypatch.setattr(CoinbaseRest, "candles", nothing)
    result = run(KEY, "exchange_candles", raise_on_error=False)
    (failure,) = result.get_step_failure_events()
    assert "has no candles of BTC-USD on 2025-06-10 any more" in str(failure.step_failure_data.error)
    assert rows_of(tables, EXCHANGE_CANDLES) == before


def test_a_fetched_day_is_carried_to_its_candles_and_so_is_a_sealed_one(
    defs: dg.Definitions, instance: dg.DagsterInstance, tables: Lakehouse, run: Run
) -> None:
    candles = dg.AssetKey("candles_1m")
    first = dg.evaluate_automation_conditions(defs, instance)
    run(OLDER, "exchange_candles")
    second = dg.evaluate_automation_conditions(defs, instance, cursor=first.cursor)
    assert second.get_requested_partitions(candles) == {OLDER}
    assert second.get_requested_partitions(dg.AssetKey("exchange_candles")) == set()
    for name in DOWNSTREAM[1:]:
        assert second.get_requested_partitions(dg.AssetKey(name)) == {OLDER}, name
    run(OLDER, *DOWNSTREAM)
    third = dg.evaluate_automation_conditions(defs, instance, cursor=second.cursor)
    assert third.total_requested == 0
    run(OLDER, "trades")
    fourth = dg.evaluate_automation_conditions(defs, instance, cursor=third.cursor)
    assert fourth.get_requested_partitions(candles) == {OLDER}


def test_wrong_candles_of_the_exchange_are_not_carried(
    defs: dg.Definitions, instance: dg.DagsterInstance, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = dg.evaluate_automation_conditions(defs, instance)

    async def upside_down(*_: object) -> list[OwnCandle]:
        one, two = Decimal("1.00000000"), Decimal("2.00000000")
        return [OwnCandle(day_start_us(DAY), one, one, two, one, one)]

    monkeypatch.setattr(CoinbaseRest, "candles", upside_down)
    result = run(KEY, "exchange_candles", raise_on_error=False)
    assert failed(result) == {"prices_in_order"}
    second = dg.evaluate_automation_conditions(defs, instance, cursor=first.cursor)
    assert second.get_requested_partitions(dg.AssetKey("candles_1m")) == set()


def test_reconciling_such_a_day_compares_what_can_be_and_speaks_of_nothing_else(
    tables: Lakehouse, run: Run
) -> None:
    run(KEY, "exchange_candles", *DOWNSTREAM)
    result = run(KEY, "reconciliation")
    assert rows_of(tables, RECONCILIATION) == []
    made = {check.check_name for check in result.get_asset_check_evaluations()}
    assert {"archive_candles_missing", "minutes_hours_value_drift", "minutes_days_missing"} <= made
    assert not any(name.startswith(("candles_exchange", "seal_archive")) for name in made)
    with tables.paimon() as store:
        rows = store.scan(CANDLES_1M, product=BTC, day=DAY).to_pylist()
        rows[5]["close"] += Decimal("0.01")
        store.replace(CANDLES_1M, BTC, DAY, pa.Table.from_pylist(rows, CANDLES_1M.schema))
    run(KEY, "reconciliation", raise_on_error=False)
    found = rows_of(tables, RECONCILIATION)
    assert {(row["comparison"], row["kind"], row["column_name"]) for row in found} >= {
        ("archive_candles", "VALUE_DRIFT", "close")
    }


def test_the_job_that_fills_days_says_what_it_does(defs: dg.Definitions) -> None:
    job = defs.resolve_job_def("fill_days_with_exchange_candles")
    assert {key.to_user_string() for key in job.asset_layer.selected_asset_keys} == {
        "exchange_candles",
        "candles_1m",
    }
    assert "Launch a backfill" in (job.description or "")


def test_trades_are_never_asked_for(tables: Lakehouse, run: Run) -> None:
    run(KEY, "exchange_candles", "candles_1m")
    with tables.iceberg() as store:
        assert store.partitions(TRADES) == []
