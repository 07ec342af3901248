"""Running the handler on a recording, from its first line to its last, exactly once.

Each batch of lines is published with a checkpoint that says how far it went. Run again, the lines that
are in the log already only bring the books back to where they were; they count as duplicates.
"""

import asyncio
from collections.abc import Iterator
from itertools import islice
from typing import Final

import structlog

from lakehouse.market.time import now_us
from lakehouse.market.trade import Source
from lakehouse.settings import Settings
from streaming.exchanges.contract import Exchange
from streaming.exchanges.recording import Received, Recording, RecordingError
from streaming.feed.handler import FeedHandler
from streaming.feed.intake import FeedTotals
from streaming.feed.metrics import HandlerMetrics
from streaming.feed.pump import Pump
from streaming.feed.sessions import RecordingState, recover
from streaming.spine.contract import Spine

LINES: Final = 5_000
"""Lines handled and published together. Part of what makes two runs alike: don't derive it from time."""

log = structlog.get_logger()


async def run_recorded(
    settings: Settings, spine: Spine, exchange: Exchange, recording: Recording, stop: asyncio.Event
) -> FeedTotals:
    """Feed a spine from a recording until its end, or until `stop` is set.

    Raises:
        RecordingError: a line is damaged; everything before it was published.
        FeedError: a product in it is another exchange's here.
        SpineError: the spine is damaged.
    """
    recovered = await asyncio.to_thread(recover, spine)
    # Other products of the same file are other messages: they make it another recording.
    name = ":".join([await asyncio.to_thread(recording.sha256), *sorted(settings.products)])
    done = recovered.recordings.setdefault(name, RecordingState(0, False))
    handler = FeedHandler(
        exchange,
        products=settings.products or None,
        partitions=spine.partitions,
        source=Source.RECORDING,
        states=recovered.products,
        lateness_minutes=settings.lateness_minutes,
    )
    recovered.count_the_rest(handler)
    pump = Pump(handler, spine, recovered.recordings)
    metrics = HandlerMetrics(exchange.code)
    frames = recording.frames()
    known = done.lines
    position = last_us = 0
    if done.lines:
        log.info("going on with a recording", path=str(recording.path), line=known, finished=done.finished)
    while not stop.is_set():
        batch, problem = _next(frames)
        again = batch[: max(known - position, 0)]
        fresh = batch[len(again) :]
        position += len(batch)
        if done.finished:
            handler.known_before(len(again))
        else:
            handler.rehearse(again)
        handler.handle(fresh)
        handler.requests()  # there is nobody to ask
        last_us = batch[-1][1] if batch else last_us
        at_end = len(batch) < LINES and problem is None
        finishing = at_end and not done.finished
        if finishing:
            handler.finish(last_us)
            done.finished = True
        if fresh or finishing:
            done.lines = position
            await pump.publish(with_checkpoint=True)
        metrics.update(handler, now_us())
        if problem is not None:
            await pump.flushed()
            raise problem
        if at_end:
            break
        await asyncio.sleep(0)
    await pump.flushed()
    return handler.totals()


def _next(frames: Iterator[Received]) -> tuple[list[Received], RecordingError | None]:
    """Return the next lines, fewer than `LINES` at the end, and what is wrong with the one after them."""
    batch: list[Received] = []
    try:
        batch.extend(islice(frames, LINES))
    except RecordingError as error:
        return batch, error
    return batch, None
