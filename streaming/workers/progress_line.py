"""The line that `lakehouse up` shows: rates, lag and freshness, from the workers' own metrics."""

import time
from collections.abc import Iterator

from lakehouse.home import Home
from lakehouse.settings import Settings
from streaming.workers.metrics import Samples, scrape, total
from streaming.workers.roster import readers
from streaming.workers.stations import stations


def progress_lines(settings: Settings, home: Home) -> Iterator[str]:
    """Yield the line as it is now, each time it is asked for; rates are since the one before."""
    label = "SIMULATED" if home.namespace == "simulated" else settings.feed_kind
    received_before, asked_before = total(scrape(home, "feed"), "lakehouse_feed_received_total"), None
    while True:
        feed = scrape(home, "feed")
        received, asked = total(feed, "lakehouse_feed_received_total"), time.monotonic()
        rate = 0.0 if asked_before is None else max(received - received_before, 0) / (asked - asked_before)
        received_before, asked_before = received, asked
        fed = _feed_part(feed, settings, rate)
        if settings.engine_kind == "flink":
            others = {worker: scrape(home, worker) for worker in ("bridge", "flink_job")}
            parts = [label, stations(fed, {"feed": feed, **others})]
        else:
            parts = [label, fed, *(_stage_part(stage, scrape(home, stage)) for stage in readers(settings))]
        gaps = int(total(feed, "lakehouse_feed_gaps_open"))
        parts.append("no gaps" if gaps == 0 else f"{gaps} GAPS OPEN")
        yield " | ".join(parts)


def _feed_part(feed: Samples | None, settings: Settings, rate: float) -> str:
    if feed is None:
        return "feed has ended" if settings.recording else "feed starting"
    if not settings.recording and total(feed, "lakehouse_feed_connected") == 0:
        return f"no connection to {settings.feed_kind}, retrying"
    return f"{rate:,.0f} frames/s"


def _stage_part(stage: str, samples: Samples | None) -> str:
    if samples is None:
        return f"{stage} starting"
    lag = int(total(samples, "lakehouse_engine_lag_messages"))
    ages = samples.get("lakehouse_engine_freshness_seconds", {}).values()
    age = f"{max(min(ages), 0):.1f} s old" if ages else "empty"
    return f"{stage} {age}" + (f", {lag:,} behind" if lag else "")
