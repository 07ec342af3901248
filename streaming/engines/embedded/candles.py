"""The candles stage: trades into one-minute candles, exactly, whatever the batches and restarts."""

import time
from collections.abc import Mapping
from typing import Final

from lakehouse.candles.minute import to_table
from lakehouse.candles.open_minutes import OpenMinutes
from lakehouse.market.time import MINUTE_US
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M
from streaming.engines.embedded.decode import trade_columns
from streaming.engines.embedded.stage import Freeing, StepResult, TopicReader
from streaming.engines.metrics import COMMIT_SECONDS
from streaming.spine.contract import Partition, Spine
from streaming.spine.topics import CANDLES, TRADES

STATE: Final = "lakehouse.candles.state"
"""Property of the table's snapshots: the open minutes and the offsets as of the commit."""

MESSAGES_PER_PARTITION: Final = 50_000
READS_PER_COMMIT: Final = 6
"""A step far behind merges this many reads before it commits: candles are few, however many the trades."""


class CandlesStage:
    """A `Stage` that keeps `candles_1m`.

    The open minutes and the offsets lie in the snapshot that they produced, so a restart goes on exactly
    there. The table takes a row only if it counts at least as many trades as the one it has, so what a seal
    has rebuilt with more trades stays.
    """

    name = CANDLES

    def __init__(self, spine: Spine, store: PaimonStore, *, lateness_minutes: int) -> None:
        self._spine = spine
        self._store = store
        self._lateness_us = lateness_minutes * MINUTE_US
        self._restore()
        self._freeing = Freeing(spine, CANDLES, synced=True)

    def _restore(self) -> None:
        """Go back to what the table says.

        Raises:
            StateError: the state there can't be read.
        """
        saved = self._store.properties(CANDLES_1M).get(STATE)
        offsets: dict[int, int] = {}
        if saved is None:
            self._minutes = OpenMinutes(self._lateness_us)
        else:
            self._minutes, offsets = OpenMinutes.restored(saved, self._lateness_us)
        self._reader = TopicReader(self._spine, TRADES, offsets)
        self._newest_us = dict(self._minutes.watermark_us)
        self._in_doubt = False

    def step(self) -> StepResult:
        """See `Stage.step`."""
        if self._in_doubt:
            self._restore()
        self._in_doubt = True  # after an error only the table knows whether the commit happened
        result = self._step()
        self._in_doubt = False
        return result

    def _step(self) -> StepResult:
        started = time.perf_counter()
        messages = duplicates = too_late = 0
        behind = True
        for _ in range(READS_PER_COMMIT):
            batches = self._reader.read(MESSAGES_PER_PARTITION)
            for partition, batch in batches:
                added = self._minutes.add(trade_columns(batch, partition))
                messages += len(batch.payloads)
                duplicates += added.duplicates
                too_late += added.too_late
            self._reader.advance(batches)
            behind = any(len(batch.payloads) >= MESSAGES_PER_PARTITION for _, batch in batches)
            if not behind:
                break
        if not messages:
            return StepResult()
        self._commit()
        COMMIT_SECONDS.labels(CANDLES, CANDLES_1M.name).observe(time.perf_counter() - started)
        self._freeing.after_commit(self._reader.offsets)
        return StepResult({TRADES: messages}, behind, duplicates, too_late)

    def _commit(self) -> None:
        offsets = {partition.number: offset for partition, offset in self._reader.offsets.items()}
        candles, complete = self._minutes.changed()
        self._store.upsert(
            CANDLES_1M, to_table(candles, complete), properties={STATE: self._minutes.saved(offsets)}
        )
        self._minutes.settle()
        self._newest_us = dict(self._minutes.watermark_us)
        self._store.maintain(CANDLES_1M)

    def lag(self) -> dict[Partition, int]:
        """See `Stage.lag`."""
        return self._reader.lag()

    def newest_us(self) -> Mapping[str, int]:
        """See `Stage.newest_us`."""
        return dict(self._newest_us)

    def close(self) -> None:
        """See `Stage.close`."""
        if not self._in_doubt:
            self._freeing.after_commit(self._reader.offsets, now=True)
