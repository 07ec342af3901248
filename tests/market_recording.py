"""A recording of a short simulated market with faults, made over a real socket."""

import asyncio
import re
from pathlib import Path

from websockets.asyncio.client import connect

from lakehouse.market.time import SECOND_US, now_us, parse_iso, to_iso
from lakehouse.market.trade import Exchange
from streaming.exchanges.coinbase import Coinbase
from streaming.exchanges.recording import RecordingWriter
from streaming.exchanges.simulated.server import SimulatedExchange

PRODUCTS = ("BTC-USD", "ETH-USD", "LINK-USD")
_HEARTBEAT = re.compile(r'^{"type":"heartbeat".*"time":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)"')
START = parse_iso("2026-03-01T23:59:00Z")


def record_market(path: Path, *, seed: int, seconds: int, rate: float, faults: str) -> list[str | bytes]:
    """Record a market of so many exchange seconds into `path` and return its frames."""
    return asyncio.run(_record(path, seed, seconds, rate, faults))


async def _record(path: Path, seed: int, seconds: int, rate: float, faults: str) -> list[str | bytes]:
    end = to_iso(START + seconds * SECOND_US)
    frames: list[str | bytes] = []
    async with SimulatedExchange(
        PRODUCTS, seed=seed, rate=rate, speed=60.0, start_us=START, faults=faults, waits=True
    ) as exchange:
        protocol = Coinbase(Exchange.SIMULATED, exchange.websocket_url, exchange.rest_url)
        with RecordingWriter(path, Exchange.SIMULATED) as writer:
            async with connect(exchange.websocket_url, max_size=None, max_queue=None) as connection:
                for request in protocol.subscribe(PRODUCTS):
                    await connection.send(request)
                while True:
                    frame = await connection.recv()
                    frames.append(frame)
                    writer.write(frame, now_us())
                    # The heartbeat of just that second may be among what a fault damaged.
                    beat = _HEARTBEAT.search(frame) if isinstance(frame, str) else None
                    if beat and beat[1] >= end:
                        return frames
