"""A WebSocket server that does nothing but push prepared match frames; a process of its own.

The frames are made and encoded ahead, and written to the socket many at a time, so that the reader is what
is measured: sent one by one they come at 140,000 a second, not 240,000.
"""

import asyncio
import sys

from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode

from lakehouse.market.time import now_us, to_iso

PRODUCTS = ("BTC-USD", "ETH-USD", "SOL-USD", "DOGE-USD", "AVAX-USD", "LINK-USD")

_AT_ONCE = 256 * 2**10


def match_frames(count: int) -> list[str]:
    """Return frames as Coinbase sends them, a few µs of event time apart, contiguous by product."""
    start = now_us()
    return [
        f'{{"type":"match","trade_id":{i // len(PRODUCTS) + 1},"maker_order_id":"b7d3f3a2-6b1e-4a1c-9c1d",'
        f'"taker_order_id":"5f1d2c3b-8a7e-4f6d-9e0c-1b2a","side":"sell","size":"0.0{i % 89 + 10}31",'
        f'"price":"{61000 + i % 700}.{i % 90 + 10}","product_id":"{PRODUCTS[i % len(PRODUCTS)]}",'
        f'"sequence":{90_000_000_000 + i},"time":"{to_iso(start + i * 10)}"}}'
        for i in range(count)
    ]


async def main(count: int) -> None:
    """Print the port, then push all frames to each client once it has sent something."""
    encoded = b"".join(
        Frame(Opcode.TEXT, frame.encode()).serialize(mask=False) for frame in match_frames(count)
    )

    async def push(connection: ServerConnection) -> None:
        await connection.recv()
        for start in range(0, len(encoded), _AT_ONCE):
            connection.transport.write(encoded[start : start + _AT_ONCE])
            await connection.drain()
        await connection.wait_closed()

    async with serve(push, "127.0.0.1", 0, compression=None, write_limit=2**20) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
