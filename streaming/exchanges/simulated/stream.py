"""The live stream: follows the clock in slices and sends each client what it subscribed to.

The position of the stream is the exchange's time: REST shows the trades before it and no later ones, so
what was streamed is exactly what REST has.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence

import structlog

from lakehouse.market.time import SECOND_US
from streaming.exchanges.simulated.book import Tops, book_at, step_of, tops_after
from streaming.exchanges.simulated.client import Client
from streaming.exchanges.simulated.clock import ExchangeClock
from streaming.exchanges.simulated.delivery import Effects, LateMatches
from streaming.exchanges.simulated.faults import Faults
from streaming.exchanges.simulated.frames import subscriptions_frame, wire
from streaming.exchanges.simulated.market import SimulatedMarket
from streaming.exchanges.simulated.product_stream import HEARTBEAT, MATCHES, Pieces, ProductStream
from streaming.exchanges.simulated.subscriptions import Channel, Request

log = structlog.get_logger()

_TICK_SECONDS = 0.004
_ENOUGH_UNREAD = 1 << 20
_LONGEST_SLEEP_US = 30 * SECOND_US


class Stream:
    """What the exchange sends.

    Args:
        market: the trades.
        clock: where the time should be.
        faults: what to break.
        end_us: the market is quiet from this time on; None for never.
        waits: let the exchange's time wait for clients that read slowly, instead of cutting them off.
    """

    def __init__(
        self,
        market: SimulatedMarket,
        clock: ExchangeClock,
        faults: Faults,
        *,
        end_us: int | None = None,
        waits: bool = False,
    ) -> None:
        self.market = market
        self.faults = faults
        self.position_us = clock.start_us
        self._clock = clock
        self._end_us = end_us
        self._waits = waits
        self._late = LateMatches()
        self._clients: set[Client] = set()
        self._disconnecting = False
        effects = Effects(disconnect=self._plan_disconnect, stall=self._stall)
        self.products = {
            product: ProductStream(market[product], faults, self._late, effects)
            for product in market.products
        }

    @property
    def market_us(self) -> int:
        """The time up to which there are trades: the position, or the market's end before it."""
        return self.position_us if self._end_us is None else min(self.position_us, self._end_us)

    def stamp_us(self) -> int:
        """Return the exchange's time as its own clock shows it."""
        return self.position_us + self.faults.skew_us(self.position_us)

    @property
    def client_count(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    def last_trade_id(self, product: str) -> int:
        """Return the id of the last trade that has happened, 0 where none has."""
        return self.market[product].last_id_before(self.market_us)

    def join(self, client: Client) -> None:
        """Let a client take part."""
        self._clients.add(client)

    def leave(self, client: Client) -> None:
        """Forget a client."""
        self._clients.discard(client)

    def apply(self, client: Client, request: Request) -> None:
        """Change a client's subscriptions, answer, and send what new ones start with."""
        if request.action == "unsubscribe":
            client.remove(request.pairs)
            client.send(subscriptions_frame(client.subscriptions()))
            return
        new = client.add(request.pairs)
        client.send(subscriptions_frame(client.subscriptions()))
        for channel, product in new:
            for payload in self._greeting(channel, product):
                client.send(payload)

    async def run(self) -> None:
        """Follow the clock until cancelled."""
        while True:
            target = self._clock.now()
            if self._clock.is_real and target - self.position_us > _LONGEST_SLEEP_US:
                log.warning("the machine slept", missed_seconds=(target - self.position_us) // SECOND_US)
                self.position_us = target
                self._cut_all()
            while self.position_us < target:
                border = self.position_us - self.position_us % SECOND_US + SECOND_US
                self._advance(min(border, target))
                await asyncio.sleep(0)
                while self._waits and any(client.unread > _ENOUGH_UNREAD for client in self._clients):
                    await asyncio.sleep(_TICK_SECONDS / 4)
            self._prepare()
            await asyncio.sleep(_TICK_SECONDS)

    def _prepare(self) -> None:
        """Make one product's next second: all of them at its start would hold everybody up."""
        second = self.position_us // SECOND_US + 1
        for product, clients in self._wanting().items():
            if self.products[product].prepare(second, _channels(clients)):
                return

    def _advance(self, end_us: int) -> None:
        """Send what happens from the position to before `end_us`, which is in the same second or its end."""
        start_us, quiet_us = self.position_us, self.market_us
        self.position_us = end_us
        wanting = self._wanting()
        outgoing: dict[Client, list[bytes]] = defaultdict(list)
        skew_us = self.faults.skew_us(start_us)
        for product, clients in wanting.items():
            stream = self.products[product]
            wanted = _channels(clients)
            pieces: Pieces = []
            if quiet_us < self.market_us:
                pieces = stream.pieces(quiet_us, self.market_us, wanted, skew_us)
            if end_us % SECOND_US == 0 and wanted & HEARTBEAT:
                heartbeat = stream.frames.heartbeat(self.last_trade_id(product), end_us + skew_us)
                pieces.append((HEARTBEAT, wire(heartbeat)))
            _share(pieces, clients, outgoing)
        for product, frame in self._late.due(end_us):
            _share([(MATCHES, frame)], wanting.get(product, []), outgoing)
        for client in list(self._clients):
            client.end_silence(end_us)
        for client, parts in outgoing.items():
            client.write(b"".join(parts))
        if self._disconnecting:
            self._disconnecting = False
            self._cut_all()

    def _wanting(self) -> dict[str, list[tuple[Client, int]]]:
        wanting: dict[str, list[tuple[Client, int]]] = defaultdict(list)
        for client in self._clients:
            for product, channels in client.channels.items():
                wanting[product].append((client, int(channels)))
        return wanting

    def _greeting(self, channel: Channel, product: str) -> list[bytes]:
        """Return the messages that a subscription starts with."""
        market, frames = self.market[product], self.products[product].frames
        if channel is Channel.LEVEL2:
            return [frames.snapshot(book_at(market, step_of(self.market_us)))]
        last_id = self.last_trade_id(product)
        if last_id == 0 or channel is Channel.HEARTBEAT:
            return []
        if channel is Channel.MATCHES:
            return frames.matches(market.by_id(last_id, last_id + 1), "last_match")
        second = market.activity.second_of(last_id)
        trades = market.seconds(second, second + 1)
        last = slice(last_id - int(trades["trade_id"][0]), last_id - int(trades["trade_id"][0]) + 1)
        tops = Tops(*(column[last] for column in tops_after(market, trades)))
        return frames.tickers(trades[last], tops, self.faults.skew_us(self.position_us))

    def _plan_disconnect(self) -> None:
        self._disconnecting = True

    def _stall(self, until_us: int) -> None:
        for client in self._clients:
            client.silence(until_us)

    def _cut_all(self) -> None:
        for client in list(self._clients):
            client.cut_off()


def _channels(clients: Sequence[tuple[Client, int]]) -> int:
    """Return the channels that somebody subscribed to."""
    wanted = 0
    for _, channels in clients:
        wanted |= channels
    return wanted


def _share(
    pieces: Pieces, clients: Sequence[tuple[Client, int]], outgoing: dict[Client, list[bytes]]
) -> None:
    """Give each client the pieces of its channels; clients with the same channels share the bytes."""
    joined: dict[int, bytes] = {}
    for client, channels in clients:
        data = joined.get(channels)
        if data is None:
            data = joined[channels] = b"".join([frame for channel, frame in pieces if channel & channels])
        if data:
            outgoing[client].append(data)
