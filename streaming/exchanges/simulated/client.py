"""One client's connection: what it subscribed to, and a bounded way of writing to it."""

from collections.abc import Mapping, Sequence

import structlog
from websockets.asyncio.server import ServerConnection
from websockets.protocol import State

from streaming.exchanges.simulated.frames import wire
from streaming.exchanges.simulated.subscriptions import CHANNEL_NAMES, Channel

log = structlog.get_logger()


class Client:
    """A connected client.

    Args:
        connection: its WebSocket.
        most_unsent: bytes that may wait for a slow client before it is cut off.
    """

    def __init__(self, connection: ServerConnection, most_unsent: int) -> None:
        self._connection = connection
        self._most_unsent = most_unsent
        self._silent_until_us = 0
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._is_cut_off = False
        self.channels: dict[str, Channel] = {}
        """Its channels by product."""

    @property
    def unread(self) -> int:
        """Bytes that wait for this client to read; none of what the exchange itself keeps back."""
        return self._connection.transport.get_write_buffer_size()

    @property
    def unsent(self) -> int:
        """Bytes that wait for this client to read, or for the end of a stall."""
        return self._kept_bytes + self.unread

    def write(self, data: bytes) -> None:
        """Send the bytes of whole WebSocket frames; a client too slow for them is cut off."""
        if not data or self._is_cut_off or self._connection.state is not State.OPEN:
            return
        if self._silent_until_us:
            self._kept.append(data)
            self._kept_bytes += len(data)
        else:
            self._connection.transport.write(data)
        if self.unsent > self._most_unsent:
            log.warning("cut off a slow client", unsent=self.unsent)
            self.cut_off()

    def send(self, payload: bytes) -> None:
        """Send one message."""
        self.write(wire(payload))

    def silence(self, until_us: int) -> None:
        """Send nothing until the exchange's time is `until_us`, then everything."""
        self._silent_until_us = max(self._silent_until_us, until_us)

    def end_silence(self, now_us: int) -> None:
        """Send what was kept, if the silence is over."""
        if 0 < self._silent_until_us <= now_us:
            self._silent_until_us = 0
            kept, self._kept, self._kept_bytes = b"".join(self._kept), [], 0
            self.write(kept)

    def cut_off(self) -> None:
        """Drop the connection without a word."""
        self._is_cut_off = True
        self._kept, self._kept_bytes = [], 0
        self._connection.transport.abort()

    def add(self, pairs: Sequence[tuple[Channel, str]]) -> list[tuple[Channel, str]]:
        """Subscribe and return the pairs that are new."""
        new = []
        for channel, product in pairs:
            had = self.channels.get(product, Channel(0))
            if not had & channel:
                self.channels[product] = had | channel
                new.append((channel, product))
        return new

    def remove(self, pairs: Sequence[tuple[Channel, str]]) -> None:
        """Unsubscribe."""
        for channel, product in pairs:
            left = self.channels.get(product, Channel(0)) & ~channel
            if left:
                self.channels[product] = left
            else:
                self.channels.pop(product, None)

    def subscriptions(self) -> Mapping[str, list[str]]:
        """Return the products of each channel, as the `subscriptions` message lists them."""
        return {
            name: sorted(product for product, has in self.channels.items() if has & channel)
            for name, channel in CHANNEL_NAMES.items()
        }
