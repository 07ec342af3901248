"""An exchange that sends exactly the frames it is given, whatever they are, to each client."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from websockets.asyncio.server import ServerConnection, serve

Frame = str | bytes


class HostileExchange:
    """Speaks as Coinbase does, once a client has subscribed; over REST it has no trades at all."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._frames = frames
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self.connections = 0
        self.websocket_url = ""
        self.rest_url = ""

    def run(self) -> None:
        """Serve in this thread until `stop`."""
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    def wait_started(self) -> None:
        """Wait until the addresses are known."""
        assert self._started.wait(10)

    def stop(self) -> None:
        """End `run`."""
        self._loop.call_soon_threadsafe(self._stopped.set)

    async def _serve(self) -> None:
        async with serve(self._talk, "127.0.0.1", 0, max_size=None, compression=None) as server:
            self.websocket_url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            self._started.set()
            await self._stopped.wait()
            server.close(close_connections=True)

    async def _talk(self, connection: ServerConnection) -> None:
        self.connections += 1
        await connection.recv()
        if self.connections == 1:
            for frame in self._frames:
                text = isinstance(frame, str) or _is_broken_text(frame)
                await connection.send(_as_bytes(frame), text=text)
        await connection.wait_closed()


def _as_bytes(frame: Frame) -> bytes:
    return frame.encode("utf-8", "surrogatepass") if isinstance(frame, str) else frame


def _is_broken_text(frame: bytes) -> bool:
    """Bytes that are no UTF-8 are sent as a frame that claims to be text."""
    try:
        frame.decode()
    except UnicodeDecodeError:
        return True
    return False


class _NoTrades(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, format: str, *_: object) -> None:
        """Say nothing: tests look at the tables."""


@contextmanager
def hostile_exchange(frames: Sequence[Frame]) -> Iterator[HostileExchange]:
    """A hostile exchange for the block."""
    exchange = HostileExchange(frames)
    rest = ThreadingHTTPServer(("127.0.0.1", 0), _NoTrades)
    exchange.rest_url = f"http://127.0.0.1:{rest.server_address[1]}"
    threads = [threading.Thread(target=run, daemon=True) for run in (exchange.run, rest.serve_forever)]
    for thread in threads:
        thread.start()
    try:
        exchange.wait_started()
        yield exchange
    finally:
        exchange.stop()
        rest.shutdown()
        rest.server_close()
        for thread in threads:
            thread.join(10)
