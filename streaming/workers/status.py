"""`lakehouse status`: what runs, how far behind it is, and what is missing or was refused."""

import sys
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from lakehouse.home import Home, HomeError, home_of
from lakehouse.settings import Settings, SettingsError, load_settings
from lakehouse.stores import sql
from lakehouse.stores.iceberg import IcebergStoreError
from lakehouse.stores.paimon_files import PaimonStoreError
from streaming.workers.metrics import Samples, scrape, total
from streaming.workers.roster import WORKERS, readers, workers
from streaming.workers.stations import problems, stations
from streaming.workers.supervisor import supervised

LAG_LIMIT = 500_000
"""Messages a stage may be behind in one partition before it counts as wrong."""

STALE_SECONDS = 30.0
"""Age of the newest trade of all live products in the hot store that counts as wrong (the SLA)."""


@dataclass
class Report:
    """What was found, and the part of it that is wrong."""

    shown: list[Table | str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def report(settings: Settings, home: Home) -> Report:
    """Look at the workers' metrics and at the tables."""
    found = Report()
    samples = {worker: scrape(home, worker) for worker in WORKERS}
    states = supervised(home)
    if not states and any(samples.values()):
        # In containers: nobody but they themselves can be asked.
        states = dict.fromkeys(workers(settings), "RUNNING")
    _workers(found, states, samples)
    if settings.engine_kind == "flink":
        _stations(found, samples, settings)
    _lag(found, samples, readers(settings), table=settings.engine_kind != "flink")
    _freshness(found, samples[readers(settings)[0]], live=settings.recording is None)
    _intake(found, samples["feed"])
    _missing_and_refused(found, home)
    return found


def _workers(found: Report, states: dict[str, str], samples: dict[str, Samples | None]) -> None:
    table = Table("worker", "state", "metrics", title="Workers", title_justify="left")
    for name, state in states.items():
        answers = "answer" if samples.get(name) is not None else "-" if name == "dagster" else "silent"
        table.add_row(name, state.lower(), answers)
        if name == "feed" and state == "EXITED":
            continue  # the end of a recording
        if state not in ("RUNNING", "STARTING"):
            found.wrong.append(f"worker {name} is {state.lower()}: see logs/{name}.log")
        elif answers == "silent":
            found.wrong.append(f"worker {name} doesn't answer (yet)")
    if not states:
        found.wrong.append("nothing is running: start it with `lakehouse up`")
    found.shown.append(table)


def _stations(found: Report, samples: dict[str, Samples | None], settings: Settings) -> None:
    ages = (samples["feed"] or {}).get("lakehouse_feed_freshness_seconds", {}).values()
    found.shown.append(stations(f"feed {min(ages):.1f} s old" if ages else "feed ?", samples))
    found.wrong += problems(samples, settings)


def _lag(found: Report, samples: dict[str, Samples | None], stages: tuple[str, ...], *, table: bool) -> None:
    rows = Table("stage", "topic", "partition", "messages behind", title="Lag", title_justify="left")
    for worker in stages:
        for labels, lag in sorted((samples[worker] or {}).get("lakehouse_engine_lag_messages", {}).items()):
            names = dict(labels)
            rows.add_row(names["stage"], names["topic"], names["partition"], f"{lag:,.0f}")
            if lag > LAG_LIMIT:
                where = f"{names['topic']}/{names['partition']}"
                found.wrong.append(f"{names['stage']} is {lag:,.0f} messages behind in {where}")
    if table:
        found.shown.append(rows)


def _freshness(found: Report, hot: Samples | None, *, live: bool) -> None:
    table = Table("product", "newest trade, seconds ago", title="Freshness", title_justify="left")
    ages = (hot or {}).get("lakehouse_engine_freshness_seconds", {})
    for labels, age in sorted(ages.items()):
        table.add_row(dict(labels)["product"], f"{age:.1f}")
    # One product may be quiet, and a gap would show; all of them at once are not.
    if live and ages and min(ages.values()) > STALE_SECONDS:
        found.wrong.append(f"the newest trade of any product is {min(ages.values()):.0f} s old")
    found.shown.append(table)


def _intake(found: Report, feed: Samples | None) -> None:
    if feed is None:
        return
    names = ("received", "accepted", "duplicates", "quarantined")
    counts = {name: int(total(feed, f"lakehouse_feed_{name}_total")) for name in names}
    table = Table(*names, title="Inputs since the feed started", title_justify="left")
    table.add_row(*(f"{count:,}" for count in counts.values()))
    found.shown.append(table)
    unaccounted = int(total(feed, "lakehouse_feed_unaccounted"))
    if unaccounted:
        found.wrong.append(f"{unaccounted:,} inputs are neither accepted, duplicate nor quarantined")
    if total(feed, "lakehouse_feed_connected") == 0:
        found.wrong.append("the feed has no connection to the exchange")


def _missing_and_refused(found: Report, home: Home) -> None:
    if not home.folder.exists():
        return
    try:
        connected = sql.connect(home)
    except (IcebergStoreError, PaimonStoreError) as error:
        found.wrong.append(str(error))
        return
    with connected as connection:
        gaps = connection.execute(
            "SELECT product, count(*), sum(last_trade_id - first_trade_id + 1) FROM gaps_open "
            "GROUP BY product ORDER BY product"
        ).fetchall()
        refused = connection.execute(
            "SELECT reason, count(*) FROM quarantine GROUP BY reason ORDER BY reason"
        ).fetchall()
    table = Table("product", "gaps", "trades missing", title="Open gaps", title_justify="left")
    for product, count, trades in gaps:
        table.add_row(product, f"{count:,}", f"{trades:,}")
        found.wrong.append(f"{trades:,} trades of {product} are missing")
    found.shown.append(table)
    table = Table("reason", "inputs", title="Quarantine", title_justify="left")
    for reason, count in refused:
        table.add_row(reason, f"{count:,}")
    found.shown.append(table)


def main() -> int:
    """Print the status; returns 1 when something is wrong."""
    try:
        settings = load_settings()
        home = home_of(settings)
        found = report(settings, home)
    except (SettingsError, HomeError) as error:
        print(f"lakehouse status: {error}", file=sys.stderr)
        return 1
    console = Console()
    label = "SIMULATED data" if home.namespace == "simulated" else "market data"
    console.print(f"{home.root} ({label})", highlight=False, soft_wrap=True)
    for shown in found.shown:
        if isinstance(shown, str) or shown.row_count:
            console.print(shown, highlight=False, soft_wrap=isinstance(shown, str))
    for sentence in found.wrong:
        console.print(f"WRONG: {sentence}", highlight=False, soft_wrap=True)
    if not found.wrong:
        console.print("All is well.")
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
