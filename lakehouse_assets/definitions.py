"""What Dagster loads: assets, jobs, sensors and resources put together. Nothing is opened here."""

import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from lakehouse.home import home_of
from lakehouse.settings import load_settings
from lakehouse_assets.market.book import book_assets
from lakehouse_assets.market.candles import candles_asset
from lakehouse_assets.market.carrying import carrying_sensor
from lakehouse_assets.market.exchange_candles import exchange_candles_asset
from lakehouse_assets.market.health import health_asset
from lakehouse_assets.market.jobs import fill_days_job, seal_days_job
from lakehouse_assets.market.liquidity import liquidity_asset
from lakehouse_assets.market.metrics import metrics_asset
from lakehouse_assets.market.rollups import rollup_assets
from lakehouse_assets.market.seal_sensor import seal_sensor
from lakehouse_assets.market.trades import trades_asset
from lakehouse_assets.operations.alerts import send_alerts_sensor
from lakehouse_assets.operations.dead_workers import dead_workers_sensor
from lakehouse_assets.operations.failed_runs import failed_runs_sensor
from lakehouse_assets.operations.maintenance import (
    maintain_tables_job,
    maintenance_assets,
    maintenance_schedule,
)
from lakehouse_assets.operations.open_gaps import open_gaps_sensor
from lakehouse_assets.operations.reconciliation import reconciliation_asset
from lakehouse_assets.operations.reconciliation_schedule import reconcile_days_job, reconciliation_schedule
from lakehouse_assets.operations.refused_inputs import refused_inputs_sensor
from lakehouse_assets.operations.stream_topics import topic_assets, watermark_sensor
from lakehouse_assets.partitions import product_days, with_last_run
from lakehouse_assets.replay.candles import replay_candles_asset
from lakehouse_assets.replay.schedule import replay_job, replay_schedule
from lakehouse_assets.resources import build_resources


def build_defs(*, resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Return fresh definitions for the settings as they are now.

    Args:
        resource_overrides: resources that stand in for `lakehouse` or `duckdb`.

    Raises:
        SettingsError: a setting is wrong.
    """
    settings = with_last_run(load_settings())
    home = home_of(settings)
    partitions = product_days(settings)
    with warnings.catch_warnings():
        # Checks of one partition and backfill policies are used on purpose; the version is pinned.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        warnings.simplefilter("ignore", dg.BetaWarning)
        trades = trades_asset(partitions, home)
        looked_at = book_assets(partitions, home)
        made = [
            exchange_candles_asset(partitions, home),
            candles_asset(partitions, home),
            *rollup_assets(partitions, home),
            metrics_asset(partitions, home),
            liquidity_asset(partitions, home),
            health_asset(partitions, home),
            reconciliation_asset(partitions, home),
            replay_candles_asset(partitions, home),
        ]
        maintenance = maintenance_assets(home)
    maintain_tables = maintain_tables_job()
    reconcile_days = reconcile_days_job(partitions)
    replay = replay_job(partitions)
    return dg.Definitions(
        assets=[*topic_assets(home, settings), trades, *looked_at, *made, *maintenance],
        jobs=[seal_days_job(partitions), fill_days_job(partitions), reconcile_days, replay, maintain_tables],
        schedules=[
            reconciliation_schedule(reconcile_days),
            replay_schedule(replay, partitions),
            maintenance_schedule(maintain_tables),
        ],
        sensors=[
            seal_sensor(trades, looked_at),
            carrying_sensor(),
            watermark_sensor(),
            open_gaps_sensor(trades),
            refused_inputs_sensor(),
            failed_runs_sensor(),
            dead_workers_sensor(),
            send_alerts_sensor(),
        ],
        # A run's steps follow each other: a process for each would only cost its start and its memory.
        executor=dg.in_process_executor,
        resources=build_resources(settings) | dict(resource_overrides or {}),
    )


defs = build_defs()
