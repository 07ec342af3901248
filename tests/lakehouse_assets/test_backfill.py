import asyncio
import os
import signal
import threading
from datetime import date, timedelta
from io import StringIO

import dagster as dg
import pytest
from rich.console import Console
from sealed_world import BTC, DAY, PRODUCTS

from lakehouse.stores.schemas import CANDLES_1M, TRADES
from lakehouse_assets import backfill as backfill_module
from lakehouse_assets.backfill import BackfillError, backfill, open_days, past_days
from lakehouse_assets.resources import Lakehouse


def test_past_days_end_with_yesterday() -> None:
    assert past_days(2, date(2025, 3, 1)) == [date(2025, 2, 28), date(2025, 2, 27)]
    assert past_days(0, date(2025, 3, 1)) == []


@pytest.fixture
def yesterday(monkeypatch: pytest.MonkeyPatch) -> date:
    """The simulated exchange's time stands in the past, so today is told from there."""
    monkeypatch.setattr(
        backfill_module, "past_days", lambda count, _today: past_days(count, DAY + timedelta(days=1))
    )
    return DAY


def test_every_product_is_sealed_with_its_candles_and_a_second_time_there_is_nothing_to_do(
    tables: Lakehouse, instance: dg.DagsterInstance, yesterday: date
) -> None:
    shown = StringIO()
    backfill(1, instance, Console(file=shown, width=120), threading.Event())
    with tables.iceberg() as store, tables.paimon() as candles:
        for partitions in (store.partitions(TRADES), candles.partitions(CANDLES_1M)):
            assert [(stats.product, stats.day) for stats in partitions] == [(name, DAY) for name in PRODUCTS]
        rows = sum(stats.rows for stats in store.partitions(TRADES))
    assert f"2 product-days, {rows:,} trades" in shown.getvalue()
    for asset in ("trades", "candles_1m"):
        materialized = instance.get_materialized_partitions(dg.AssetKey(asset))
        assert materialized == {f"{DAY}|{name}" for name in PRODUCTS}
    runs = instance.get_runs_count()
    backfill(1, instance, Console(file=shown, width=120), threading.Event())
    assert "there already" in shown.getvalue()
    assert instance.get_runs_count() == runs


def test_a_day_whose_candles_are_missing_is_open(
    tables: Lakehouse, instance: dg.DagsterInstance, yesterday: date
) -> None:
    backfill(1, instance, Console(file=StringIO()), threading.Event())
    assert open_days(tables, PRODUCTS, [DAY]) == []
    with tables.paimon() as store:
        store.replace(CANDLES_1M, BTC, DAY, CANDLES_1M.schema.empty_table())
    assert open_days(tables, PRODUCTS, [DAY]) == [f"{DAY}|{BTC}"]


def test_what_could_not_be_sealed_is_said(
    tables: Lakehouse, instance: dg.DagsterInstance, yesterday: date, monkeypatch: pytest.MonkeyPatch
) -> None:
    backfill(1, instance, Console(file=StringIO()), threading.Event())
    with tables.iceberg() as store:
        store.append(TRADES, store.scan(TRADES, product=BTC, day=DAY).slice(0, 1))
    said = r"1 of 1 product-days could not be sealed, such as .*BTC-USD: the check no_duplicate_trades failed"
    with pytest.raises(BackfillError, match=said):
        backfill(1, instance, Console(file=StringIO()), threading.Event())


def test_an_error_is_said_with_the_day(
    tables: Lakehouse, instance: dg.DagsterInstance, yesterday: date, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise OSError("no space left on the device")

    monkeypatch.setattr("lakehouse_assets.market.trades.seal_day", broken)
    with pytest.raises(BackfillError, match=r"BTC-USD: OSError: no space left on the device \(run "):
        backfill(1, instance, Console(file=StringIO()), threading.Event())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_a_day_ends_it(
    tables: Lakehouse,
    instance: dg.DagsterInstance,
    yesterday: date,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    async def interrupted(*_: object) -> None:
        os.kill(os.getpid(), number)
        await asyncio.sleep(60)

    monkeypatch.setattr("lakehouse_assets.market.trades.seal_day", interrupted)
    with pytest.raises(KeyboardInterrupt):
        backfill(1, instance, Console(file=StringIO()), threading.Event())
    assert instance.get_runs_count() == 1


def test_stopping_ends_it_after_the_run_that_goes_on_and_the_next_start_goes_on(
    tables: Lakehouse, instance: dg.DagsterInstance, yesterday: date
) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        backfill(1, instance, Console(file=StringIO()), stop)
    assert instance.get_runs_count() == 1
    assert len(open_days(tables, PRODUCTS, [DAY])) == 1
    backfill(1, instance, Console(file=StringIO()), threading.Event())
    assert open_days(tables, PRODUCTS, [DAY]) == []
