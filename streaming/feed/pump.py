"""Carrying the handler's messages to the spine, with checkpoints, without blocking the event loop."""

import asyncio

import structlog

from streaming.feed.handler import FeedHandler
from streaming.feed.publisher import Publisher
from streaming.feed.sessions import SESSION, RecordingState, checkpoint, commit
from streaming.spine.contract import Spine, SpineUnavailableError

log = structlog.get_logger()


class Pump:
    """Hands the handler's messages to the spine in a thread, one batch at a time."""

    def __init__(self, handler: FeedHandler, spine: Spine, recordings: dict[str, RecordingState]) -> None:
        self._handler = handler
        self._spine = spine
        self._publisher = Publisher(spine)
        self._recordings = recordings
        self._running: asyncio.Task[None] | None = None

    async def publish(self, *, with_checkpoint: bool) -> None:
        """Start to publish what waits, after the batch before is durable."""
        await self.flushed()
        if with_checkpoint:
            self._handler.count()  # a checkpoint is exact only if everything before it is counted
        batch = self._handler.take()
        ends = self._publisher.ends(after=batch)
        if with_checkpoint:
            ends[SESSION] += 1
            batch[SESSION] = [checkpoint(self._handler, self._recordings, ends)]
        if batch:
            self._running = asyncio.create_task(asyncio.to_thread(self._publisher.publish, batch))
        if with_checkpoint:
            await self.flushed()
            try:
                await asyncio.to_thread(commit, self._spine, ends)
            except SpineUnavailableError as error:
                # It only lets retention go on, and the next checkpoint's does so too.
                log.warning("the log wasn't told of a checkpoint", error=str(error))

    async def flushed(self) -> None:
        """Wait until everything handed over is durable."""
        if self._running is not None:
            await self._running
            self._running = None
