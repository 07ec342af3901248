"""The hot stage: trades and quotes into the hot store, within milliseconds."""

import time
from collections.abc import Mapping

import numpy as np
import structlog

from lakehouse.market.quote import NO_IMBALANCE
from lakehouse.stores.hot import HotStore, TopOfBook
from streaming.engines.embedded.decode import products, quote_records, trade_columns
from streaming.engines.embedded.stage import Freeing, StepResult, TopicReader, lag_of, offsets_of
from streaming.engines.metrics import COMMIT_SECONDS
from streaming.spine.contract import Batch, OffsetExpiredError, Partition, Spine
from streaming.spine.topics import HOT, QUOTES, TRADES

MESSAGES_PER_PARTITION = 20_000
"""Messages a step takes from each partition: few, so that readers of a store far behind see it catch up."""

_log = structlog.get_logger()


class HotStage:
    """A `Stage` that keeps a `HotStore`."""

    name = HOT

    def __init__(self, spine: Spine, store: HotStore) -> None:
        self._spine = spine
        self._store = store
        self._readers = self._opened()
        self._freeing = Freeing(spine, HOT, synced=False)  # all of it can be made again

    def _opened(self) -> list[TopicReader]:
        offsets = self._store.offsets()
        return [
            TopicReader(
                self._spine,
                topic,
                {number: offset for (of_topic, number), offset in offsets.items() if of_topic == topic},
            )
            for topic in (TRADES, QUOTES)
        ]

    def step(self) -> StepResult:
        """See `Stage.step`."""
        read = [(reader, self._read(reader)) for reader in self._readers]
        (_, trades), (_, quotes) = read
        if not trades and not quotes:
            return StepResult()
        started = time.perf_counter()
        tops: dict[str, TopOfBook] = {}
        for partition, batch in quotes:
            tops |= _last_quotes(batch, partition)
        self._store.apply(
            [trade_columns(batch, partition) for partition, batch in trades],
            tops.values(),
            {partition: batch.next_offset for _, batches in read for partition, batch in batches},
        )
        COMMIT_SECONDS.labels(HOT, "hot").observe(time.perf_counter() - started)
        for reader, batches in read:
            reader.advance(batches)
        self._freeing.after_commit(offsets_of(self._readers))
        sizes = [len(batch.payloads) for _, batches in read for _, batch in batches]
        return StepResult(
            {reader.topic: sum(len(batch.payloads) for _, batch in batches) for reader, batches in read},
            behind=max(sizes) >= MESSAGES_PER_PARTITION,
        )

    def _read(self, reader: TopicReader) -> list[tuple[Partition, Batch]]:
        while True:
            try:
                return reader.read(MESSAGES_PER_PARTITION)
            except OffsetExpiredError as error:
                # Only a store that a power cut threw back asks for what is gone. It shows the present, so it
                # goes on with that.
                _log.warning(
                    "the log no longer has what the hot store wants next; going on at what it has",
                    topic=error.partition.topic,
                    partition=error.partition.number,
                    offset=error.earliest,
                )
                reader.skip_to(error.partition, error.earliest)

    def lag(self) -> dict[Partition, int]:
        """See `Stage.lag`."""
        return lag_of(self._readers)

    def newest_us(self) -> Mapping[str, int]:
        """See `Stage.newest_us`."""
        return self._store.newest_us()

    def close(self) -> None:
        """See `Stage.close`."""
        self._freeing.after_commit(offsets_of(self._readers), now=True)


def _last_quotes(batch: Batch, partition: Partition) -> dict[str, TopOfBook]:
    """Return the last quote of each product in a batch."""
    records = quote_records(batch, partition)
    names, codes = products(records, batch, partition)
    found = {}
    for code, name in enumerate(names):
        at = int(np.flatnonzero(codes == code)[-1])
        record = records[at]
        imbalance = int(record["imbalance"])
        found[name] = TopOfBook(
            name,
            exchange=int(record["exchange"]),
            bid=int(record["bid"]),
            bid_size=int(record["bid_size"]),
            ask=int(record["ask"]),
            ask_size=int(record["ask_size"]),
            imbalance=None if imbalance == NO_IMBALANCE else imbalance,
            event_us=int(record["event_us"]),
            recorded_us=int(batch.published_us[at]),
        )
    return found
