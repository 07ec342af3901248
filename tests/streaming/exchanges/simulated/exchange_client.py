"""A client of the simulated exchange that shares no code with it or with the feed."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from streaming.exchanges.simulated.server import SimulatedExchange

Message = dict[str, Any]
ALL_CHANNELS = ("matches", "ticker", "heartbeat", "level2_batch")


def subscribe(products: Sequence[str], channels: Sequence[str] = ALL_CHANNELS) -> str:
    return json.dumps({"type": "subscribe", "product_ids": list(products), "channels": list(channels)})


def listening(exchange: SimulatedExchange) -> connect:
    """Return a connection that always reads: one with a full queue would wait 10 s for its close."""
    return connect(exchange.websocket_url, max_size=None, max_queue=None)


async def frames_until(
    exchange: SimulatedExchange, channels: Sequence[str], end: str, timeout: float = 30.0
) -> list[str | bytes]:
    """Subscribe to everything and return the frames until each product's heartbeat is at `end` or later."""
    products = set(exchange.market.products)
    frames: list[str | bytes] = []
    async with asyncio.timeout(timeout), listening(exchange) as socket:
        await socket.send(subscribe(sorted(products), [*channels, "heartbeat"]))
        while products:
            frame = await socket.recv()
            frames.append(frame)
            if isinstance(frame, str) and frame.startswith('{"type":"heartbeat"'):
                heartbeat = json.loads(frame)
                if heartbeat["time"] >= end:
                    products.discard(heartbeat["product_id"])
    return frames


async def messages_until(
    exchange: SimulatedExchange, channels: Sequence[str], end: str, timeout: float = 30.0
) -> list[Message]:
    """Return what `frames_until` returns, decoded."""
    return [json.loads(frame) for frame in await frames_until(exchange, channels, end, timeout)]


async def read_until_closed(socket: ClientConnection) -> tuple[list[str | bytes], int | None]:
    """Return every frame until the exchange closes, and the close code: None for a connection cut off."""
    frames: list[str | bytes] = []
    async with asyncio.timeout(20):
        try:
            while True:
                frames.append(await socket.recv())
        except ConnectionClosed as closed:
            return frames, closed.rcvd.code if closed.rcvd else None


def of_type(messages: Sequence[Message], kind: str, product: str | None = None) -> list[Message]:
    return [
        message
        for message in messages
        if message["type"] == kind and product in (None, message.get("product_id"))
    ]
