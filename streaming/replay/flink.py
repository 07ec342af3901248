"""A replay where Flink writes the tables: its batch jobs make the candles from the pinned snapshot itself.

Flink reads the market from Fluss and not from the log, and nobody else may write to Paimon there. So nothing
is published to the topic `replay`: a job for each product computes the candles as Flink computes those of a
sealed day, at once. A pace would be that of nobody, and is refused.
"""

import time
from collections.abc import Callable, Collection
from datetime import date

from lakehouse.home import Home
from lakehouse.settings import Settings
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import REPLAY_CANDLES_1M, TRADES
from lakehouse.stores.seals import known_edges
from streaming.engines.flink.batch import drop_replays, replay_day
from streaming.engines.flink.target import flink_target
from streaming.replay.progress import OnProgress, Progress, Replayed
from streaming.replay.settings import Replay, ReplayError


class FlinkReplays:
    """Runs replays in Flink; see `streaming.replay.replaying`."""

    def __init__(self, settings: Settings, home: Home, archive: IcebergStore, candles: PaimonStore) -> None:
        self._target = flink_target(settings, home)
        self._archive = archive
        self._candles = candles

    def check(self, replay: Replay) -> None:
        """Refuse what Flink can't do.

        Raises:
            ReplayError: the replay has a pace.
        """
        if replay.speed is not None:
            raise ReplayError(
                "where Flink makes the candles a replay takes all of a day at once: say --speed max, or use "
                "a home of the embedded engine"
            )

    def run(self, replay: Replay, on_progress: OnProgress, is_stopped: Callable[[], bool]) -> Replayed:
        """Run one job after the other; a replay that was killed is done again, with the same result."""
        started = time.perf_counter()
        rows = {
            stats.product: stats.rows
            for stats in self._archive.partitions(TRADES, snapshot_id=replay.snapshot_id)
            if stats.day == replay.day and stats.product in replay.products
        }
        trades, jobs = 0, list[str]()
        for product in replay.products:
            if is_stopped():
                break
            with self._candles.lock(REPLAY_CANDLES_1M):
                job_id = replay_day(
                    self._target,
                    product,
                    replay.day,
                    replay_id=replay.id,
                    snapshot_id=replay.snapshot_id,
                    edges=known_edges(self._archive, product, replay.day),
                )
            jobs.append(job_id)
            trades += rows.get(product, 0)
            on_progress(Progress(trades, sum(rows.values()), 0))
        seconds = time.perf_counter() - started
        return Replayed(replay, trades, trades, seconds, len(jobs) == len(replay.products), tuple(jobs))

    def drop(self, product: str, day: date, replay_ids: Collection[str]) -> None:
        """Take the candles of replays out of a product's day."""
        with self._candles.lock(REPLAY_CANDLES_1M):
            drop_replays(self._target, product, day, replay_ids)
