"""`python -m lakehouse_assets.backfill --days N`: seal the past days of every product, with a progress bar.

Each product-day is a Dagster run of the job `seal_days` in this process, so that Dagster shows it like any
other. Days that are sealed already, with their candles, are passed over: after an interruption the next
start goes on. The newest days come first, because they are what a person looks at.
"""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import FrameType

import dagster as dg
import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import lakehouse
from lakehouse.home import HomeError
from lakehouse.settings import SettingsError, load_settings
from lakehouse.stores.iceberg import IcebergStoreError
from lakehouse.stores.paimon_files import PaimonStoreError
from lakehouse.stores.schemas import CANDLES_1M, TRADES
from lakehouse.stores.seals import seals
from lakehouse_assets.definitions import build_defs
from lakehouse_assets.partitions import CAUSE, parsed, product_day_key, products, with_last_run
from lakehouse_assets.resources import Lakehouse

ROOT = Path(lakehouse.__file__).parents[1]
_JOB = "seal_days"
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class BackfillError(Exception):
    """Some days could not be sealed; the text says which and where to look."""


def past_days(count: int, today: date) -> list[date]:
    """Return the last `count` days before today, the newest first."""
    return [today - timedelta(days=back) for back in range(1, count + 1)]


def open_days(tables: Lakehouse, names: tuple[str, ...], days: list[date]) -> list[dg.MultiPartitionKey]:
    """Return the product-days that are not sealed with their candles, in the order of `days`."""
    if not tables.is_written:
        return [product_day_key(product, day) for day in days for product in names]
    with tables.iceberg() as store, tables.paimon() as candles:
        rows = {(stats.product, stats.day): stats.rows for stats in store.partitions(TRADES)}
        with_candles = {(stats.product, stats.day) for stats in candles.partitions(CANDLES_1M)}
        sealed = seals(store)
    return [
        product_day_key(product, day)
        for day in days
        for product in names
        if (record := sealed.get((product, day))) is None
        or record.rows != rows.get((product, day), 0)
        or (record.rows and (product, day) not in with_candles)
    ]


def backfill(days: int, instance: dg.DagsterInstance, console: Console, stop: threading.Event) -> None:
    """Seal the last days of every product of the settings, until `stop` is set.

    Raises:
        KeyboardInterrupt: `stop` was set, or a signal came; the day that was being sealed is not.
        BackfillError: a day could not be sealed; the others were.
        SettingsError: a setting is wrong.
    """
    settings = with_last_run(load_settings())
    tables = Lakehouse.of(settings)
    keys = open_days(tables, products(settings), past_days(days, datetime.now(UTC).date()))
    if not keys:
        console.print(f"The last {days} days are there already.")
        return
    job = build_defs().resolve_job_def(_JOB)
    failed: dict[str, str] = {}
    trades, started = 0, time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[trades]:,} trades"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("past days", total=len(keys), trades=0)
        for key in keys:
            product, day = parsed(key)
            progress.update(task, description=f"{product} {day}")
            run = job.execute_in_process(
                partition_key=key,
                instance=instance,
                tags={CAUSE: "the past days, fetched at the first start"},
                run_config=_QUIET,
                raise_on_error=False,
            )
            if stop.is_set() or _was_interrupted(run):
                raise KeyboardInterrupt
            if not run.success:
                failed[key] = f"{_problem(run)} (run {run.run_id})"
            for event in run.get_asset_materialization_events():
                if event.asset_key == dg.AssetKey(TRADES.name):
                    count = event.materialization.metadata["dagster/partition_row_count"].value
                    trades += count if isinstance(count, int) else 0
            progress.update(task, advance=1, trades=trades)
        progress.update(task, description="past days")
    if failed:
        first, problem = next(iter(failed.items()))
        raise BackfillError(
            f"{len(failed)} of {len(keys)} product-days could not be sealed, such as {first}: {problem}. "
            "Dagster shows the runs; start again to go on with these days"
        )
    console.print(f"{len(keys)} product-days, {trades:,} trades in {time.monotonic() - started:.0f} s.")


def _was_interrupted(run: dg.ExecuteInProcessResult) -> bool:
    """Tell whether a signal ended a run: while one goes on, Dagster takes signals itself and tells nobody."""
    return any(
        error is not None and error.cls_name == dg.DagsterExecutionInterruptedError.__name__
        for failure in run.get_step_failure_events()
        for error in (failure.step_failure_data.error,)
    )


def _problem(run: dg.ExecuteInProcessResult) -> str:
    """Say for a person why a run failed."""
    for evaluation in run.get_asset_check_evaluations():
        if not evaluation.passed and evaluation.severity is dg.AssetCheckSeverity.ERROR:
            return f"the check {evaluation.check_name} failed: {(evaluation.description or '').rstrip('.')}"
    for failure in run.get_step_failure_events():
        error = failure.step_failure_data.error
        while error is not None and error.cause is not None:
            error = error.cause
        if error is not None:
            return error.message.strip()
    return "the run failed"


def _instance() -> dg.DagsterInstance:
    if os.environ.get("DAGSTER_HOME"):
        return dg.DagsterInstance.get()
    return dg.DagsterInstance.from_config(str(ROOT))


def main() -> int:
    """Run the backfill; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lakehouse_assets.backfill")
    parser.add_argument("--days", type=int, required=True, help="how many days before today")
    arguments = parser.parse_args()

    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        # Dagster makes a failed run of an interruption and returns: what follows has to know.
        stop.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    # What each seal says is in its run's log; here it would tear the progress display apart.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        with _instance() as instance:
            backfill(arguments.days, instance, Console(), stop)
    except (SettingsError, HomeError, IcebergStoreError, PaimonStoreError, BackfillError) as error:
        print(f"backfill: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
