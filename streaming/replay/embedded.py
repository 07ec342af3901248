"""A replay where the Python workers write the tables: archive → topic `replay` → the candles stage."""

import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import date
from functools import partial
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.home import Home
from lakehouse.market.columns import times
from lakehouse.market.time import DAY_US, now_us
from lakehouse.settings import Settings
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import REPLAY_CANDLES_1M, TRADES
from lakehouse.stores.seals import known_edges
from streaming.engines.embedded.candles import CandlesStage, CandleStream
from streaming.engines.embedded.decode import replayed_columns
from streaming.replay.archived import replay_records
from streaming.replay.progress import OnProgress, Progress, Replayed
from streaming.replay.publisher import Publisher
from streaming.replay.running import FreeingAlone, is_paused, unpause
from streaming.replay.settings import Replay
from streaming.spine.opening import open_spine
from streaming.spine.topics import REPLAY

_STEP_EVERY_SECONDS: Final = 0.1
"""Time between two commits of a replay as fast as possible: they cost half of that."""


class EmbeddedReplays:
    """Runs replays in this process; see `streaming.replay.replaying`."""

    def __init__(self, settings: Settings, home: Home, archive: IcebergStore, candles: PaimonStore) -> None:
        self._settings = settings
        self._home = home
        self._archive = archive
        self._candles = candles

    def check(self, replay: Replay) -> None:
        """Every replay can be run."""

    def run(self, replay: Replay, on_progress: OnProgress, is_stopped: Callable[[], bool]) -> Replayed:
        """Publish in one thread and make candles in this one, each with its own connection to the log.

        A killed replay goes on from the newest time of each product in its candles' state: what it had
        published after that is published again, and is known by its ids where it was counted already.
        """
        started = time.perf_counter()
        unpause(self._home, replay.id)
        if replay.state not in self._candles.properties(REPLAY_CANDLES_1M):
            for product in replay.products:
                self.drop(product, replay.day, {replay.id})
        with (
            open_spine(self._settings, self._home) as reading,
            open_spine(self._settings, self._home) as writing,
            ThreadPoolExecutor(1) as pool,
        ):
            freeing = FreeingAlone(reading, self._home, replay.id)
            stage = CandlesStage(reading, self._candles, self._stream(replay), freeing)
            records = replay_records(self._archive, replay, stage.newest_us())
            total = self._archived(replay)
            before = total - len(records)
            stage.begin_at_end()
            publisher = Publisher(writing, records, replay.speed, partial(is_paused, self._home, replay.id))
            publishing = pool.submit(publisher.run)
            try:
                pause = (
                    _STEP_EVERY_SECONDS if replay.speed is None else self._settings.commit_interval_ms / 1000
                )
                while wait([publishing], pause).not_done:
                    stage.step()
                    on_progress(
                        Progress(before + publisher.published, total, publisher.event_us, publisher.paused)
                    )
                    if is_stopped():
                        publisher.stop.set()
                publishing.result()
            finally:
                publisher.stop.set()
            while (result := stage.step()).messages or result.behind:
                pass
            on_progress(Progress(before + publisher.published, total, publisher.event_us))
            finished = publisher.published == len(records)
            if finished:
                stage.end()
            seconds = time.perf_counter() - started
            stage.close()
        return Replayed(replay, before + publisher.published, publisher.published, seconds, finished)

    def _stream(self, replay: Replay) -> CandleStream:
        def rows(candles: pa.Table) -> pa.Table:
            count = candles.num_rows
            candles = candles.append_column("replay_id", pa.repeat(pa.scalar(replay.id), count))
            candles = candles.append_column("trades_snapshot_id", pa.repeat(replay.snapshot_id, count))
            moment = times(pc.cast(pa.repeat(now_us(), count), pa.int64()).to_numpy())
            return candles.append_column("replayed_at", moment)

        return CandleStream(
            group=REPLAY,
            topic=REPLAY,
            trades=partial(replayed_columns, replay.number),
            table=REPLAY_CANDLES_1M,
            rows=rows,
            state=replay.state,
            # No minute closes before the day's last trade: neither does a trade come too late nor is the id
            # beside a minute asked for too early, however ids and times are mixed.
            lateness_us=DAY_US,
            edges={product: known_edges(self._archive, product, replay.day) for product in replay.products},
        )

    def _archived(self, replay: Replay) -> int:
        return sum(
            stats.rows
            for stats in self._archive.partitions(TRADES, snapshot_id=replay.snapshot_id)
            if stats.day == replay.day and stats.product in replay.products
        )

    def drop(self, product: str, day: date, replay_ids: Collection[str]) -> None:
        """Take the candles of replays out of a product's day."""
        store, table = self._candles, REPLAY_CANDLES_1M
        with store.lock(table):
            there = store.scan(table, product=product, day=day)
            gone = pc.is_in(there["replay_id"], pa.array(list(replay_ids), pa.string()))
            if pc.any(gone).as_py():
                store.replace(table, product, day, there.filter(pc.invert(gone)))
