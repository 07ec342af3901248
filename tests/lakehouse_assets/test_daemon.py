"""What Dagster's daemon makes of the definitions by itself: sensors, conditions, schedules and backfills."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from daemon import Daemon, daemon_of
from sealed_world import BTC, DAY, KEY, NEXT_DAY, PRODUCTS
from table_rows import make_trades

from lakehouse.market.exact import unscaled
from lakehouse.market.time import HOUR_US, MINUTE_US, day_start_us, to_datetime
from lakehouse.market.trade import Side
from lakehouse.stores.schemas import CANDLES_1M, RECONCILIATION, REPLAY_CANDLES_1M, TRADES
from lakehouse_assets.partitions import product_day_key
from lakehouse_assets.resources import Lakehouse
from streaming.exchanges.simulated.server import SimulatedExchange

NIGHT = datetime.now(UTC).replace(hour=3, minute=10, second=0, microsecond=0) + timedelta(days=1)
"""Before the schedules of the night, and after the hourly one."""

MADE_OF_TRADES = ("candles_1m", "candles_1h", "candles_1d", "metrics_daily", "exchange_health")
HALF_AN_HOUR = timedelta(minutes=30)
MOST_STEPS = 10


@pytest.fixture
def daemon(lakehouse_settings: Path, tmp_path: Path) -> Iterator[Daemon]:
    folder = tmp_path / "dagster"
    folder.mkdir()
    with daemon_of(folder, NIGHT) as running:
        yield running


def stream_past_the_end_of_day(exchange: SimulatedExchange, tables: Lakehouse) -> None:
    """Archive a trade of DAY as the stream would, and one that says that DAY is over."""
    with tables.iceberg() as store:
        for day, minute in ((DAY, 60), (NEXT_DAY, 10)):
            start = day_start_us(day) + minute * MINUTE_US
            trade = exchange.market.trades(BTC, start, start + HOUR_US)[0]
            side = Side(trade["taker_side"]).name.lower()
            row = {"event_time": to_datetime(int(trade["event_us"])), "taker_side": side}
            row |= {name: unscaled(int(trade[name])) for name in ("price", "size")}
            store.append(TRADES, make_trades([int(trade["trade_id"])], BTC, day, **row))


def succeeded(runs: list[dg.DagsterRun]) -> bool:
    return all(run.status is dg.DagsterRunStatus.SUCCESS for run in runs)


def materialized(daemon: Daemon, asset: str) -> set[str]:
    return daemon.instance.get_materialized_partitions(dg.AssetKey(asset))


def test_a_day_that_is_over_is_sealed_and_all_that_is_made_of_it_follows_once(
    daemon: Daemon, exchange: SimulatedExchange, tables: Lakehouse
) -> None:
    stream_past_the_end_of_day(exchange, tables)
    assert daemon.automation() == []
    (sealing,) = daemon.sensors()
    assert succeeded([sealing])
    assert materialized(daemon, "trades") == {KEY}
    assert succeeded(daemon.automation())
    for asset in (*MADE_OF_TRADES, "liquidity"):
        assert materialized(daemon, asset) == {KEY}, asset
    assert daemon.sensors() == []
    assert daemon.automation() == []


def test_a_run_that_fails_is_told_of_and_carries_nothing(
    daemon: Daemon, exchange: SimulatedExchange, tables: Lakehouse
) -> None:
    stream_past_the_end_of_day(exchange, tables)
    daemon.automation()
    with tables.iceberg() as store:
        store.append(TRADES, store.scan(TRADES, product=BTC, day=DAY))  # twice: a blocking check fails
    (sealing,) = daemon.sensors()
    assert sealing.status is dg.DagsterRunStatus.FAILURE
    daemon.automation()
    for asset in MADE_OF_TRADES:
        assert materialized(daemon, asset) == set(), asset
    assert daemon.sensors() == []
    (alert,) = tables.home.alerts.glob("*.json")
    assert sealing.run_id in alert.read_text()


def test_a_night_reconciles_and_replays_what_is_sealed_once(daemon: Daemon, defs: dg.Definitions) -> None:
    sealed = [dg.AssetKey(name) for name in ("trades", *MADE_OF_TRADES)]
    defs.resolve_implicit_global_asset_job_def().execute_in_process(
        partition_key=KEY, instance=daemon.instance, asset_selection=sealed
    )
    assert daemon.schedules(timedelta(0)) == []
    runs = daemon.schedules(HALF_AN_HOUR)
    assert {run.job_name for run in runs} == {"reconcile_days", "replay"}
    assert succeeded(runs)
    for table in (RECONCILIATION, REPLAY_CANDLES_1M):
        assert materialized(daemon, table.name) == {KEY}
    assert daemon.schedules(timedelta(minutes=1)) == []


LAUNCH = """
mutation ($backfill: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $backfill) { ... on LaunchBackfillSuccess { backfillId } }
}
"""
ASSETS = """
query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status assetBackfillData { assetBackfillStatuses {
      ... on AssetPartitionsStatusCounts { assetKey { path } numPartitionsMaterialized numPartitionsFailed }
    } } }
  }
}
"""


def test_a_backfill_asked_for_in_the_ui_is_one_run_for_each_product(
    daemon: Daemon, tables: Lakehouse
) -> None:
    days = [DAY - timedelta(days=back) for back in (2, 1, 0)]
    keys = [product_day_key(product, day) for day in days for product in PRODUCTS]
    assets = ("trades", "candles_1m")
    asked = {"assetSelection": [{"path": [asset]} for asset in assets], "partitionNames": keys}
    launched = daemon.ask(LAUNCH, backfill=asked)["launchPartitionBackfill"]
    runs: list[dg.DagsterRun] = []
    for _ in range(MOST_STEPS):
        runs += daemon.backfills()
        said = daemon.ask(ASSETS, id=launched["backfillId"])["partitionBackfillOrError"]
        if said["status"].startswith("COMPLETED"):
            break
    assert said["status"] == "COMPLETED_SUCCESS"
    assert succeeded(runs)
    assert len(runs) == len(PRODUCTS)
    assert {
        one["assetKey"]["path"][0]: (one["numPartitionsMaterialized"], one["numPartitionsFailed"])
        for one in said["assetBackfillData"]["assetBackfillStatuses"]
    } == dict.fromkeys(assets, (len(keys), 0))
    with tables.iceberg() as store, tables.paimon() as candles:
        for partitions in (store.partitions(TRADES), candles.partitions(CANDLES_1M)):
            assert {product_day_key(str(one.product), one.day) for one in partitions} == set(keys)
