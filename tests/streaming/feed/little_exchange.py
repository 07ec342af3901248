"""A tiny exchange on real sockets that says what a test tells it to, in Coinbase's protocol."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve

from lakehouse.home import Home
from lakehouse.market.time import to_iso
from lakehouse.settings import Settings, load_settings
from streaming.feed.intake import FeedTotals
from streaming.spine.sqlite import SqliteSpine
from streaming.workers.feed import run_feed

Script = Callable[[ServerConnection], Awaitable[None]]


class LittleExchange:
    """Plays one script a connection, the last one for all that follow, and serves trades over REST."""

    def __init__(self, *scripts: Script, trades: dict[int, int] | None = None, refusals: int = 0) -> None:
        self._scripts = scripts
        self._stack = AsyncExitStack()
        self.connections = 0
        self.heard: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self._rest = _rest_server(self, trades or {}, refusals)

    async def __aenter__(self) -> Self:
        self._server: Server = await self._stack.enter_async_context(
            serve(self._play, "127.0.0.1", 0, max_size=None)
        )
        threading.Thread(target=self._rest.serve_forever, daemon=True).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._rest.shutdown()
        self._rest.server_close()
        self._server.close(close_connections=True)
        await self._stack.aclose()

    def settings(self, home: Path, **others: object) -> Settings:
        port = next(iter(self._server.sockets)).getsockname()[1]
        chosen: dict[str, object] = {
            "feed": "coinbase",
            "products": "BTC-USD,ETH-USD",
            "home": home,
            "coinbase_websocket_url": f"ws://127.0.0.1:{port}",
            "coinbase_rest_url": f"http://127.0.0.1:{self._rest.server_address[1]}",
        }
        return load_settings(**(chosen | others))

    async def _play(self, connection: ServerConnection) -> None:
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        self.heard.append(json.loads(await connection.recv()))
        listener = asyncio.create_task(self._listen(connection))
        try:
            await script(connection)
        finally:
            listener.cancel()

    async def _listen(self, connection: ServerConnection) -> None:
        async for message in connection:
            self.heard.append(json.loads(message))


def _rest_server(exchange: LittleExchange, trades: dict[int, int], refusals: int) -> ThreadingHTTPServer:
    left = [refusals]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            exchange.asked.append(self.path)
            if left[0] > 0:
                left[0] -= 1
                self.send_response(429)
                self.end_headers()
                return
            query = parse_qs(urlsplit(self.path).query)
            below = int(query.get("after", ["999999999"])[0])
            page = sorted((i for i in trades if i < below), reverse=True)[: int(query["limit"][0])]
            rows = [
                {"time": to_iso(trades[i]), "trade_id": i, "price": "5", "size": "1", "side": "buy"}
                for i in page
            ]
            body = json.dumps(rows).encode()
            self.send_response(200)
            if page:
                self.send_header("CB-AFTER", str(page[-1]))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *_: object) -> None:
            """Stay quiet: the tests look at `asked`."""

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


async def stay(connection: ServerConnection) -> None:
    """The end of a script that keeps the connection open."""
    await connection.wait_closed()


async def feed_until(
    settings: Settings, done: Callable[[SqliteSpine], bool], *, seconds: float = 20
) -> FeedTotals:
    """Run the feed until something is in its spine, then stop it as SIGTERM does."""
    home = Home(settings.home, "market").create()
    stop = asyncio.Event()
    with SqliteSpine.open(home.spine) as spine:
        task = asyncio.create_task(run_feed(settings, home, spine, stop))
        try:
            async with asyncio.timeout(seconds):
                while not done(spine) and not task.done():
                    await asyncio.sleep(0.01)
        finally:
            stop.set()
            totals = await task
        return totals
