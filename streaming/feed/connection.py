"""The socket: reads frames as fast as they come, and connects anew whenever it has to.

Frames go into a bounded `Inbox` without being looked at. Exchanges cut slow readers off, so reading
stops only when the inbox is full, which is measured.
"""

import asyncio
import random
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.frames import Opcode
from websockets.http11 import Response

from lakehouse.market.time import now_us
from streaming.exchanges.contract import Exchange
from streaming.exchanges.recording import Received
from streaming.feed.handler import FeedError
from streaming.feed.metrics import BUFFERED, CONNECTED, PAUSES, RECONNECTS

MAX_MESSAGE: Final = 64 * 2**20
"""Largest message that is read, in bytes; beyond, the connection is closed and made anew."""

FULL_FRAMES: Final = 300_000
FULL_CHARACTERS: Final = 256 * 2**20

LONGEST_WAIT: Final = 30.0
_FIRST_WAIT: Final = 0.25
_DATA: Final = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)

log = structlog.get_logger()


class Inbox:
    """Frames that were read and not handled yet."""

    def __init__(self) -> None:
        self._frames: deque[Received] = deque()
        self._characters = 0
        self._paused: asyncio.Transport | None = None
        self._arrived = asyncio.Event()
        self.last_frame_at = 0.0
        """When the last frame came, by the event loop's clock."""
        self.total = 0
        """Frames that ever came."""

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: str | bytes, received_us: int) -> None:
        """Add a frame."""
        self._frames.append((frame, received_us))
        self._characters += len(frame)

    def filled(self, before: int, transport: asyncio.Transport) -> None:
        """Take notice of the frames put since there were `before`; stop reading when it is too many."""
        self.total += len(self._frames) - before
        self._arrived.set()
        full = len(self._frames) >= FULL_FRAMES or self._characters >= FULL_CHARACTERS
        if full and self._paused is None:
            PAUSES.inc()
            self._paused = transport
            transport.pause_reading()

    def take(self, limit: int) -> list[Received]:
        """Return up to `limit` frames in order."""
        BUFFERED.set(len(self._frames))
        next_frame = self._frames.popleft
        taken = [next_frame() for _ in range(min(limit, len(self._frames)))]
        self._characters -= sum([len(frame) for frame, _ in taken])
        if not self._frames:
            self._arrived.clear()
        low = len(self._frames) < FULL_FRAMES // 2 and self._characters < FULL_CHARACTERS // 2
        if self._paused is not None and low:
            if not self._paused.is_closing():
                self._paused.resume_reading()
            self._paused = None
        return taken

    async def wait(self, seconds: float) -> None:
        """Wait until there is a frame, or `wake` is called, but no longer than `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._arrived.wait()
        except TimeoutError:
            return

    def wake(self) -> None:
        """End a `wait`: there is something else to do."""
        self._arrived.set()


class _FrameConnection(ClientConnection):
    """Puts whole messages into the inbox as they are parsed, many a wake-up, instead of one an await."""

    def __init__(self, *arguments: Any, inbox: Inbox, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._inbox = inbox
        self._parts: list[bytes] = []
        self._is_text = True
        self._now_us = 0

    def data_received(self, data: bytes) -> None:
        self._now_us = now_us()
        before = len(self._inbox)
        super().data_received(data)
        if len(self._inbox) > before:
            self._inbox.last_frame_at = self.loop.time()
            self._inbox.filled(before, self.transport)

    def process_event(self, event: Any) -> None:
        if isinstance(event, Response) or event.opcode not in _DATA:
            super().process_event(event)
            return
        if event.opcode is not Opcode.CONT:
            self._is_text = event.opcode is Opcode.TEXT
        data: bytes = event.data
        if not event.fin or self._parts:
            self._parts.append(bytes(data))
            if not event.fin:
                return
            data = b"".join(self._parts)
            self._parts = []
        try:
            self._inbox.put(data.decode() if self._is_text else bytes(data), self._now_us)
        except UnicodeDecodeError:  # it claims to be text and isn't: it goes to quarantine as it is
            self._inbox.put(bytes(data), self._now_us)


class Connection:
    """One connection for many products, for as long as the feed runs.

    Args:
        exchange: says where to connect and what to send.
        products: what to subscribe to.
        inbox: where the frames go.
        silence: seconds without a frame after which the connection counts as dead.
        lost: called after a connection was lost and its last frame was taken from the inbox.

    Raises:
        FeedError: more products than one connection carries.
    """

    def __init__(
        self,
        exchange: Exchange,
        products: Sequence[str],
        inbox: Inbox,
        *,
        silence: float,
        lost: Callable[[], None],
    ) -> None:
        if len(products) > exchange.max_products:
            raise FeedError(
                f"{len(products)} products are more than one connection of {exchange.code.name.lower()} "
                f"carries ({exchange.max_products}): shorten LAKEHOUSE_PRODUCTS"
            )
        self._exchange = exchange
        self._products = products
        self._inbox = inbox
        self._silence = silence
        self._lost = lost
        self._socket: _FrameConnection | None = None
        self._pace = asyncio.Lock()

    async def run(self) -> None:
        """Stay connected until cancelled."""
        address = self._exchange.connect_url(self._products)
        place = urlsplit(address).netloc
        failures = 0
        while True:
            before = self._inbox.total
            try:
                await self._stay(address)
                problem = "the exchange closed the connection"
            except (OSError, WebSocketException, TimeoutError) as error:
                problem = _sentence(error, place)
            finally:
                self._socket = None
                CONNECTED.set(0)
            failures = 0 if self._inbox.total > before else failures + 1
            wait = random.uniform(0.5, 1.0) * min(LONGEST_WAIT, _FIRST_WAIT * 2**failures)
            log.warning("not connected, trying again", problem=problem, seconds=round(wait, 2))
            while len(self._inbox):
                await asyncio.sleep(0.001)
            self._lost()
            await asyncio.sleep(wait)
            RECONNECTS.inc()

    async def send(self, frames: Sequence[str]) -> None:
        """Send frames, no faster than the exchange allows; drops them while not connected.

        Nothing is lost by that: a new connection subscribes to everything.
        """
        for frame in frames:
            async with self._pace:
                if self._socket is None:
                    return
                try:
                    await self._socket.send(frame)
                except WebSocketException as error:
                    log.info("not sent", problem=str(error))
                    return
                await asyncio.sleep(1 / self._exchange.client_messages_per_second)

    async def _stay(self, address: str) -> None:
        """Connect, subscribe, and return when the connection is closed or silent."""
        inbox = self._inbox

        def connection(*arguments: Any, **keywords: Any) -> _FrameConnection:
            return _FrameConnection(*arguments, inbox=inbox, **keywords)

        async with connect(
            address,
            create_connection=connection,  # type: ignore[arg-type]  # any callable will do
            max_size=MAX_MESSAGE,
            max_queue=None,
            open_timeout=10,
            ping_timeout=max(20.0, self._silence),
            close_timeout=2,
        ) as opened:
            assert isinstance(opened, _FrameConnection)
            self._socket = opened
            loop = asyncio.get_running_loop()
            inbox.last_frame_at = loop.time()
            await self.send(self._exchange.subscribe(self._products))
            CONNECTED.set(1)
            log.info("connected", place=urlsplit(address).netloc, products=len(self._products))
            closed = asyncio.ensure_future(opened.wait_closed())
            try:
                while not closed.done():
                    quiet_until = inbox.last_frame_at + self._silence
                    if loop.time() >= quiet_until:
                        raise TimeoutError(f"nothing came for {self._silence:g} seconds")
                    await asyncio.wait([closed], timeout=quiet_until - loop.time())
            except asyncio.CancelledError:
                await opened.close()  # the feed is stopping: say so properly
                raise
            finally:
                closed.cancel()
            if opened.close_code is not None and opened.close_code != 1000:
                raise TimeoutError(f"closed with {opened.close_code} {opened.close_reason or ''}".strip())


def _sentence(error: Exception, place: str) -> str:
    """Say for a person why there is no connection."""
    if isinstance(error, socket.gaierror):
        return f"no network: {place} can't be found"
    if isinstance(error, ConnectionRefusedError):
        return f"nobody answers at {place}"
    if isinstance(error, OSError) and not isinstance(error, TimeoutError) and error.errno is not None:
        return f"no network: {place} can't be reached ({error.strerror})"
    return f"{place}: {error}" if str(error) else f"{place} doesn't answer ({type(error).__name__})"
