"""The exchange as a whole: a WebSocket and a REST server on loopback over one market."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import structlog
import uvicorn
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from lakehouse.settings import USD_PRODUCTS, Settings
from streaming.exchanges.simulated.client import Client
from streaming.exchanges.simulated.clock import ExchangeClock
from streaming.exchanges.simulated.faults import Faults, parse_plan
from streaming.exchanges.simulated.frames import error_frame
from streaming.exchanges.simulated.market import SimulatedMarket
from streaming.exchanges.simulated.rate_limit import TokenBucket
from streaming.exchanges.simulated.rest import rest_application
from streaming.exchanges.simulated.stream import Stream
from streaming.exchanges.simulated.subscriptions import MOST_MESSAGE_BYTES, BadRequestError, parse_request

log = structlog.get_logger()

_CLIENT_MESSAGES_A_SECOND = 100
_POLICY_VIOLATION = 1008
_BURST = 1.5


class SimulatedExchange:
    """A running exchange; an asynchronous context manager.

    Args:
        products: what it trades.
        seed: of the market and of the plan of faults.
        rate: trades a second, all products together, on average.
        speed: exchange seconds that pass in a second.
        start_us: the exchange's time as it starts; None for this machine's.
        end_us: no trades from this time on (heartbeats go on); None for never.
        faults: plan, as `faults.parse_plan` reads it.
        host: address to listen on.
        websocket_port: 0 takes a free one.
        rest_port: 0 takes a free one.
        rest_rate: REST requests a second; Coinbase allows 10. One and a half times as many at once.
        waits: let the exchange's time wait for slow clients (for exact runs faster than real time)
            instead of cutting them off.
        most_unsent: bytes that may wait for a slow client before it is cut off.
        subscribe_seconds: a client that hasn't subscribed by then is closed.

    Raises:
        FaultPlanError: the plan can't be read.
        OSError: a port is taken (on entering).

    >>> async def use():
    ...     async with SimulatedExchange(["BTC-USD"], seed=7, rate=10.0) as exchange:
    ...         print(exchange.websocket_url, exchange.rest_url)
    """

    def __init__(
        self,
        products: Sequence[str] = USD_PRODUCTS,
        *,
        seed: int = 7,
        rate: float = 60.0,
        speed: float = 1.0,
        start_us: int | None = None,
        end_us: int | None = None,
        faults: str = "",
        host: str = "127.0.0.1",
        websocket_port: int = 0,
        rest_port: int = 0,
        rest_rate: float = 200.0,
        waits: bool = False,
        most_unsent: int = 32 << 20,
        subscribe_seconds: float = 5.0,
    ) -> None:
        self.market = SimulatedMarket(seed, products, rate)
        self.faults = Faults(seed, parse_plan(faults))
        self._clock = ExchangeClock(speed, start_us)
        self.stream = Stream(self.market, self._clock, self.faults, end_us=end_us, waits=waits)
        self._host = host
        self._ports = (websocket_port, rest_port)
        self._rest_rate = rest_rate
        self._most_unsent = most_unsent
        self._subscribe_seconds = subscribe_seconds
        self._running = contextlib.AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: set[asyncio.Task[None]] = set()
        self.websocket_url = ""
        self.rest_url = ""

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the exchange that the settings describe."""
        return cls(
            settings.chosen_products,
            seed=settings.simulated_seed,
            rate=settings.simulated_rate,
            speed=settings.simulated_speed,
            faults=settings.simulated_faults,
            host=settings.host,
            websocket_port=settings.simulated_websocket_port,
            rest_port=settings.simulated_rest_port,
            rest_rate=settings.simulated_rest_rate,
            # Faster than real time there is no "too slow": the exchange's time waits for its readers.
            waits=settings.simulated_speed > 1.0,
        )

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as starting:
            websocket_port = await self._start_websocket(starting)
            rest_port = await self._start_rest(starting)
            self._clock.restart()
            self.stream.position_us = self._clock.start_us
            self._follow(starting, asyncio.create_task(self.stream.run(), name="stream"))
            self._running = starting.pop_all()
        self.websocket_url = f"ws://{self._host}:{websocket_port}"
        self.rest_url = f"http://{self._host}:{rest_port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._running.aclose()

    async def wait(self) -> None:
        """Wait until a part of the exchange fails, and raise its error; for as long as it runs well."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        raise RuntimeError("a part of the simulated exchange has ended")

    async def _start_websocket(self, stack: contextlib.AsyncExitStack) -> int:
        server: Server = await stack.enter_async_context(
            serve(
                self._serve_client,
                self._host,
                self._ports[0],
                compression=None,  # frames are encoded once for all clients, see frames.wire
                max_size=MOST_MESSAGE_BYTES,
                close_timeout=1,
            )
        )
        port: int = next(iter(server.sockets)).getsockname()[1]
        return port

    async def _start_rest(self, stack: contextlib.AsyncExitStack) -> int:
        listener = _listener(self._host, self._ports[1])
        stack.callback(listener.close)
        limit = TokenBucket(self._rest_rate, self._rest_rate * _BURST)
        config = uvicorn.Config(
            rest_application(self.stream, limit),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        server = _RestServer(config)
        task = asyncio.create_task(server.serve(sockets=[listener]), name="rest")
        self._tasks.append(task)
        while not server.started:
            if task.done():
                task.result()
                raise RuntimeError("the REST server ended as it started")
            await asyncio.sleep(0.005)

        async def stop() -> None:
            server.should_exit = True
            await task

        stack.push_async_callback(stop)
        port: int = listener.getsockname()[1]
        return port

    def _follow(self, stack: contextlib.AsyncExitStack, task: asyncio.Task[None]) -> None:
        self._tasks.append(task)

        async def stop() -> None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        stack.push_async_callback(stop)

    async def _serve_client(self, connection: ServerConnection) -> None:
        """Read what one client asks for until it goes."""
        client = Client(connection, self._most_unsent)
        limit = TokenBucket(_CLIENT_MESSAGES_A_SECOND, _CLIENT_MESSAGES_A_SECOND)
        self.stream.join(client)
        timeout = asyncio.get_running_loop().call_later(
            self._subscribe_seconds, self._close_if_idle, client, connection
        )
        try:
            async for message in connection:
                if not limit.take():
                    client.send(error_frame("Rate limit exceeded", "at most 100 messages a second"))
                    await connection.close(_POLICY_VIOLATION, "rate limit exceeded")
                    return
                try:
                    request = parse_request(message, self.market.products)
                except BadRequestError as error:
                    client.send(error_frame(error.message, error.reason))
                else:
                    self.stream.apply(client, request)
        except ConnectionClosed as error:
            log.info("a client's connection broke", reason=str(error))
        finally:
            timeout.cancel()
            self.stream.leave(client)

    def _close_if_idle(self, client: Client, connection: ServerConnection) -> None:
        if not client.channels:
            task = asyncio.create_task(
                connection.close(_POLICY_VIOLATION, f"no subscription in {self._subscribe_seconds:g} s")
            )
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def _listener(host: str, port: int) -> socket.socket:
    """Return a bound socket that names TCP: asyncio turns Nagle's delay (40 ms an answer) off only then."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


class _RestServer(uvicorn.Server):
    """uvicorn without its signal handlers: the process decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
