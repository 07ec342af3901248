"""Runs that seal product-days: asked for once for each cause, and again after growing pauses.

What was asked for is remembered in a sensor's cursor, which only keeps it from asking too often: without it
the same runs are asked for, and Dagster knows their keys.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import dagster as dg
import msgspec

from lakehouse.market.time import SECOND_US
from lakehouse_assets.partitions import CAUSE, product_day_key
from streaming.sealing.due import Due

MOST_RUNS: Final = 12
"""Runs asked for in one tick; the rest comes with the next ones, oldest days first."""

FIRST_PAUSE_SECONDS: Final = 900
LONGEST_PAUSE_SECONDS: Final = 86_400


class Asked(msgspec.Struct, frozen=True):
    """The last time a product-day was asked to be sealed."""

    cause: str
    attempt: int
    at_us: int


class SealRequests(NamedTuple):
    """What to ask Dagster for, and what to remember of it."""

    runs: list[dg.RunRequest]
    asked: dict[str, Asked]
    """By partition key, of days that are still due."""
    due: list[Due]
    """Those of the days that have a partition."""


def to_ask(due: Sequence[Due], asked: Mapping[str, Asked], moment_us: int) -> list[tuple[str, Due, Asked]]:
    """Return the runs to ask for now: partition key, what is due, and what the cursor says of it then. Pure.

    A day is asked for once for each cause. If it is still due for the same cause after a pause, its run has
    failed (the exchange was away): it is asked for again, each time after a longer pause.
    """
    wanted: list[tuple[str, Due, Asked]] = []
    for item in due:
        key = product_day_key(item.product, item.day)
        before = asked.get(key)
        attempt = 1
        if before is not None and before.cause == item.cause:
            pause = min(FIRST_PAUSE_SECONDS * 2 ** min(before.attempt - 1, 10), LONGEST_PAUSE_SECONDS)
            if moment_us < before.at_us + pause * SECOND_US:
                continue
            attempt = before.attempt + 1
        wanted.append((key, item, Asked(item.cause, attempt, moment_us)))
    return wanted[:MOST_RUNS]


def seal_requests(
    trades: dg.AssetsDefinition,
    due: Sequence[Due],
    asked: Mapping[str, Asked],
    moment_us: int,
    *,
    looked_at: Sequence[dg.AssetsDefinition] = (),
    most_attempts: int | None = None,
) -> SealRequests:
    """Return the runs for days that are due and have a partition. Pure.

    Args:
        trades: the asset whose materialization seals a day.
        due: what is to be sealed, and why.
        asked: what was asked for before.
        moment_us: now, µs UTC.
        looked_at: assets to materialize in the same runs.
        most_attempts: how often to ask for one cause; for ever where None.
    """
    partitions = trades.partitions_def
    keys = [product_day_key(item.product, item.day) for item in due]
    known = {
        key: item
        for key, item in zip(keys, due, strict=True)
        if partitions is not None and partitions.has_partition_key(key)
    }
    wanted = [
        (key, item, entry)
        for key, item, entry in to_ask([*known.values()], asked, moment_us)
        if most_attempts is None or entry.attempt <= most_attempts
    ]
    runs = [
        dg.RunRequest(
            run_key=f"{key}:{item.cause}:{entry.attempt}",
            partition_key=key,
            asset_selection=[trades.key, *(asset.key for asset in looked_at)],
            tags={CAUSE: item.why},
        )
        for key, item, entry in wanted
    ]
    remembered = {key: entry for key, entry in asked.items() if key in known}
    return SealRequests(runs, remembered | {key: entry for key, _, entry in wanted}, [*known.values()])
