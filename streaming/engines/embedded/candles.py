"""The candles stage: trades into one-minute candles, exactly, whatever the batches and restarts."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from lakehouse.candles.minute import to_table
from lakehouse.candles.open_minutes import OpenMinutes
from lakehouse.market.time import MINUTE_US
from lakehouse.market.trade_columns import TradeColumns
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, Table
from streaming.engines.embedded.decode import trade_columns
from streaming.engines.embedded.stage import Freeing, StepResult, TopicReader
from streaming.engines.metrics import COMMIT_SECONDS
from streaming.spine.contract import Batch, Partition, Spine
from streaming.spine.topics import CANDLES, TRADES

STATE: Final = "lakehouse.candles.state"
"""Property of the table's snapshots: the open minutes and the offsets as of the commit."""

MESSAGES_PER_PARTITION: Final = 50_000
READS_PER_COMMIT: Final = 6
"""A step far behind merges this many reads before it commits: candles are few, however many the trades."""


@dataclass(frozen=True)
class CandleStream:
    """Which trades of the log become the candles of which table."""

    group: str
    """The stage's name and its consumer group."""
    topic: str
    trades: Callable[[Batch, Partition], TradeColumns]
    """What a batch of the topic holds for this stage."""
    table: Table
    rows: Callable[[pa.Table], pa.Table]
    """Rows of `candles_1m` as rows of the table."""
    state: str
    """Property of the table's snapshots: the open minutes and the offsets as of the commit."""
    lateness_us: int
    """How far behind its product's newest trade a minute may have ended and still be open."""
    edges: Mapping[str, Iterable[int]]
    """By product the ids that are known to be trades of other days."""


def live(lateness_minutes: int) -> CandleStream:
    """Return the stream that keeps `candles_1m`."""
    return CandleStream(
        *(CANDLES, TRADES, trade_columns, CANDLES_1M, lambda rows: rows, STATE),
        lateness_us=lateness_minutes * MINUTE_US,
        edges={},
    )


class CandlesStage:
    """A `Stage` that keeps a table of candles.

    The open minutes and the offsets lie in the snapshot that they produced, so a restart goes on exactly
    there. The table takes a row only if it counts at least as many trades as the one it has, so what a seal
    has rebuilt with more trades stays.
    """

    def __init__(
        self, spine: Spine, store: PaimonStore, stream: CandleStream, freeing: Freeing | None = None
    ) -> None:
        """Start where the table says; `freeing` tells the log what may go, in its own way where given."""
        self._spine = spine
        self._store = store
        self._stream = stream
        self._restore()
        self._freeing = freeing or Freeing(spine, stream.group, synced=True)

    @property
    def name(self) -> str:
        """See `Stage.name`."""
        return self._stream.group

    def _restore(self) -> None:
        """Go back to what the table says.

        Raises:
            StateError: the state there can't be read.
        """
        stream = self._stream
        saved = self._store.properties(stream.table).get(stream.state)
        offsets: dict[int, int] = {}
        if saved is None:
            self._minutes = OpenMinutes(stream.lateness_us)
        else:
            self._minutes, offsets = OpenMinutes.restored(saved, stream.lateness_us)
        for product, trade_ids in stream.edges.items():
            self._minutes.know(product, trade_ids)
        self._reader = TopicReader(self._spine, stream.topic, offsets)
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
                trades = self._stream.trades(batch, partition)
                added = self._minutes.add(trades)
                messages += len(trades)
                duplicates += added.duplicates
                too_late += added.too_late
            self._reader.advance(batches)
            behind = any(len(batch.payloads) >= MESSAGES_PER_PARTITION for _, batch in batches)
            if not behind:
                break
        if not messages:
            return StepResult(behind=behind)
        self._commit()
        COMMIT_SECONDS.labels(self.name, self._stream.table.name).observe(time.perf_counter() - started)
        self._freeing.after_commit(self._reader.offsets)
        return StepResult({self._stream.topic: messages}, behind, duplicates, too_late)

    def _commit(self) -> None:
        stream = self._stream
        offsets = {partition.number: offset for partition, offset in self._reader.offsets.items()}
        candles, complete = self._minutes.changed()
        rows = stream.rows(to_table(candles, complete))
        self._store.upsert(stream.table, rows, properties={stream.state: self._minutes.saved(offsets)})
        self._minutes.settle()
        self._newest_us = dict(self._minutes.watermark_us)
        self._store.maintain(stream.table)

    def begin_at_end(self) -> None:
        """Go on at the log's end and commit that: what waits there was published for an earlier start."""
        for partition in self._reader.offsets:
            self._reader.skip_to(partition, self._spine.end(partition))
        self._commit()

    def end(self) -> None:
        """Let the table forget the stage's state: nothing more will come."""
        table = self._stream.table
        self._store.upsert(table, table.schema.empty_table(), properties={self._stream.state: None})

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
