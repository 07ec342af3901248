"""Replaying a day from a terminal: `lakehouse replay`.

`python -m streaming.workers.replay --day DAY [--products A,B] [--speed 60|max] [--snapshot ID]`, or
`--pause ID`, `--resume ID` for one that runs, in whatever process.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime

import click
import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from lakehouse import logs
from lakehouse.home import Home, HomeError, home_of
from lakehouse.market.product import InvalidProductError
from lakehouse.market.time import to_iso
from lakehouse.settings import Settings, SettingsError, load_settings
from lakehouse.stores.iceberg import IcebergStore, IcebergStoreError
from lakehouse.stores.iceberg_catalog import warehouse
from lakehouse.stores.lock import AlreadyRunningError
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.paimon_files import PaimonStoreError
from streaming.engines.flink.errors import FlinkError
from streaming.replay.progress import OnProgress, Progress, Replayed
from streaming.replay.replaying import run
from streaming.replay.running import pause, resume
from streaming.replay.settings import ReplayError, archived_products, chosen, parsed_speed
from streaming.spine.contract import SpineError
from streaming.workers.stop_signal import StopSignal

_SAY_EVERY_SECONDS = 5.0

_log = structlog.get_logger()


def replay(
    settings: Settings,
    home: Home,
    day: date,
    products: tuple[str, ...],
    speed: float | None,
    snapshot_id: int | None,
    stop: StopSignal,
) -> Replayed:
    """Replay a day, showing how far it is; no products are all that have trades then.

    Raises:
        ReplayError: there is nothing to replay.
        Exception: see `streaming.replay.replaying.run`.
    """
    with IcebergStore.open(home) as archive, PaimonStore.open(home) as candles:
        products = products or archived_products(archive, day, snapshot_id)
        wanted = chosen(archive, candles, day, products, speed, snapshot_id)
        _log.info(
            "replaying",
            replay=wanted.id,
            products=",".join(wanted.products),
            speed=wanted.pace,
            snapshot=wanted.snapshot_id,
        )
        with _shown(wanted.id) as on_progress:
            return run(settings, home, archive, candles, wanted, on_progress, stop.is_set)


@contextmanager
def _shown(replay_id: str) -> Iterator[OnProgress]:
    """Show progress as a bar on a terminal, else as a line of the log now and then."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield logged(replay_id)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[at]}"),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task(replay_id, total=None, at="")

        def show(progress: Progress) -> None:
            at = to_iso(progress.event_us)[11:19] if progress.event_us else ""
            shown = f"{at} paused" if progress.paused else at
            bar.update(task, completed=progress.trades, total=progress.total, at=shown)

        yield show


def logged(replay_id: str) -> OnProgress:
    """Return what writes a line to the log every few seconds, and one when all is published."""
    due = time.monotonic() + _SAY_EVERY_SECONDS

    def say(progress: Progress) -> None:
        nonlocal due
        if time.monotonic() < due and progress.trades < progress.total:
            return
        due = time.monotonic() + _SAY_EVERY_SECONDS
        _log.info(
            "the replay goes on" if not progress.paused else "the replay is paused",
            replay=replay_id,
            trades=progress.trades,
            total=progress.total,
            at=to_iso(progress.event_us) if progress.event_us else None,
        )

    return say


@click.command()
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]))
@click.option("--products", default="")
@click.option("--speed", default="max")
@click.option("--snapshot", type=int)
@click.option("--pause", "paused")
@click.option("--resume", "resumed")
def main(
    day: datetime | None,
    products: str,
    speed: str,
    snapshot: int | None,
    paused: str | None,
    resumed: str | None,
) -> None:
    """Run what `lakehouse replay` was told; the exit code is 0 when the replay came to its end."""
    logs.configure("replay")
    stop = StopSignal()
    stop.listen()
    try:
        settings = load_settings()
        home = home_of(settings)
        if not warehouse(home).exists():
            raise ReplayError(f"{home.folder} holds no data yet: start `lakehouse up` first")
        if paused is not None or resumed is not None:
            if paused is not None:
                pause(home, paused)
            if resumed is not None:
                resume(home, resumed)
            return
        if day is None:
            raise ReplayError("say which day: --day 2026-11-20")
        names = tuple(part.strip() for part in products.split(",") if part.strip())
        found = replay(settings, home, day.date(), names, parsed_speed(speed), snapshot, stop)
    except (
        *(SettingsError, HomeError, ReplayError, InvalidProductError, AlreadyRunningError),
        *(IcebergStoreError, PaimonStoreError, SpineError, FlinkError),
    ) as error:
        print(f"lakehouse replay: {error}", file=sys.stderr)
        sys.exit(1)
    summary = {
        "replay_id": found.replay.id,
        "snapshot_id": found.replay.snapshot_id,
        "trades": found.trades,
        "published": found.published,
        "seconds": round(found.seconds, 3),
        "finished": found.finished,
    }
    print(json.dumps(summary))
    if not found.finished:
        print("lakehouse replay: stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
