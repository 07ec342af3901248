"""What Dagster loads: assets, jobs, sensors and resources put together. Nothing is opened here."""

import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from lakehouse.home import home_of
from lakehouse.settings import load_settings
from lakehouse_assets.market.candles import candles_asset
from lakehouse_assets.market.carrying import carrying_sensor
from lakehouse_assets.market.jobs import seal_days_job
from lakehouse_assets.market.sensors import seal_sensor
from lakehouse_assets.market.trades import trades_asset
from lakehouse_assets.operations.maintenance import (
    maintain_tables_job,
    maintenance_assets,
    maintenance_schedule,
)
from lakehouse_assets.partitions import product_days, with_last_run
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
        candles = candles_asset(partitions, home)
        maintenance = maintenance_assets(home)
    maintain_tables = maintain_tables_job()
    return dg.Definitions(
        assets=[trades, candles, *maintenance],
        jobs=[seal_days_job(partitions), maintain_tables],
        schedules=[maintenance_schedule(maintain_tables)],
        sensors=[seal_sensor(trades), carrying_sensor()],
        # A run's steps follow each other: a process for each would only cost its start and its memory.
        executor=dg.in_process_executor,
        resources=build_resources(settings) | dict(resource_overrides or {}),
    )


defs = build_defs()
