"""How far the market has come under the flink engine: feed → log → Fluss → Flink → tables, on one line."""

import math
from collections.abc import Mapping
from typing import Final

from lakehouse.settings import Settings
from streaming.workers.metrics import Samples, total

ROWS_LIMIT: Final = 500_000
"""Rows of one table that the streaming job may be behind before it counts as wrong."""

_LONGEST_SECONDS: Final = 60.0
_LONGEST_CHECKPOINTS: Final = 6


def stations(fed: str, samples: Mapping[str, Samples | None]) -> str:
    """Return the line: at each station what waits before it, and how old the tables' last commit is.

    Args:
        fed: what is to be said of the feed.
        samples: each worker's metrics, None of one that doesn't run.
    """
    feed, bridge, keeper = samples["feed"], samples["bridge"], samples["flink_job"]
    return " → ".join(
        (
            fed,
            _station("log", feed, "lakehouse_feed_buffered_frames", "waiting"),
            _station("Fluss", bridge, "lakehouse_engine_lag_messages", "behind"),
            _station("Flink", keeper, "lakehouse_flink_lag_rows", "rows behind")
            if total(keeper, "lakehouse_flink_running")
            else f"Flink {_state(keeper) or '?'}",
            _tables(keeper),
        )
    )


def problems(samples: Mapping[str, Samples | None], settings: Settings) -> list[str]:
    """Return what is wrong at the stations behind the log, each as one sentence.

    A worker that doesn't answer has nothing to say here.
    """
    found = []
    missing = (samples["bridge"] or {}).get("lakehouse_bridge_missing_messages", {})
    for labels, messages in sorted(missing.items()):
        if messages:
            topic = dict(labels)["topic"]
            found.append(
                f"{messages:,.0f} messages of {topic} are in the log and not in the archive; they are pushed "
                "again until they are there"
            )
    keeper = samples["flink_job"]
    if keeper is None:
        return found
    cause = _label(keeper, "lakehouse_flink_failure", "cause")
    if total(keeper, "lakehouse_flink_circling"):
        found.append(f"the streaming job restarts in circles: {cause or 'see logs/flink_job.log'}")
    elif not total(keeper, "lakehouse_flink_running"):
        state = _state(keeper)
        said = f"the streaming job is {state}" if state else "nothing is known of the streaming job (yet)"
        found.append(said + (f": {cause}" if cause else ""))
    for labels, rows in sorted(keeper.get("lakehouse_flink_lag_rows", {}).items()):
        if rows > ROWS_LIMIT:
            found.append(f"the streaming job is {rows:,.0f} rows behind in {dict(labels)['table']}")
    age = _checkpoint_age(keeper)
    if age > max(_LONGEST_SECONDS, _LONGEST_CHECKPOINTS * settings.flink_checkpoint_seconds):
        found.append(f"nothing was committed to the tables for {age:.0f} s")
    return found


def _station(name: str, samples: Samples | None, metric: str, waiting: str) -> str:
    return f"{name} ?" if samples is None else f"{name} {total(samples, metric):,.0f} {waiting}"


def _tables(keeper: Samples | None) -> str:
    age = _checkpoint_age(keeper)
    return "tables ?" if math.isnan(age) else f"tables {age:.1f} s old"


def _checkpoint_age(keeper: Samples | None) -> float:
    """Return the time since the last commit in seconds, NaN where none is known."""
    return next(iter((keeper or {}).get("lakehouse_flink_checkpoint_age_seconds", {}).values()), math.nan)


def _state(keeper: Samples | None) -> str | None:
    state = _label(keeper, "lakehouse_flink_state", "state")
    return None if state == "unknown" else state


def _label(samples: Samples | None, metric: str, label: str) -> str | None:
    """Return the label of the one series that the metric has, None where it has none."""
    return next((dict(labels)[label] for labels in (samples or {}).get(metric, {})), None)
